"""R4 and the rules about accounts: what a browser brings back, again, too late or altered, and who may not get in."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.base import SessionBase
from django.middleware.csrf import CSRF_SESSION_KEY
from django.test import override_settings
from django.urls import reverse
from django.utils.crypto import get_random_string
from django.utils.module_loading import import_string

from .. import clock, conf, entropy, keyring
from ..access.policy import Assurance
from ..access.stepping import step_up_url
from ..audit.request import SESSION_KEY
from .bending import NO
from .browser import Browser
from .op import Exchange
from .scene import Scene, later

# code -> (what the browser brings back, a callback that differs in that one thing and is accepted)
R4: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "state_missing": ({"state": NO}, {}),
    "state_unknown": ({"state": "x" * 43}, {}),
    "iss_mismatch": ({"iss": "https://elsewhere.example"}, {}),
    "iss_missing": ({"iss": NO}, {}),
    "provider_error": ({"error": "access_denied"}, {"remark": "access_denied"}),
    "parameter_repeated": ({"code": ["a", "b"]}, {"remark": ["a", "b"]}),
    "code_missing": ({"code": NO}, {}),
}


def altered(url: str, **changes: Any) -> str:
    """Return url with parameters replaced, left out (NO) or repeated (a list)."""
    parts = urlsplit(url)
    query = {**dict(parse_qsl(parts.query)), **changes}
    return parts._replace(query=urlencode({k: v for k, v in query.items() if v is not NO}, doseq=True)).geturl()


def altered_callback(code: str, scene: Scene) -> None:
    """What the browser brings back differs in one thing from what the provider gave it."""
    wrong, right = R4[code]
    with scene.declaring():
        browser = scene.browser()
        scene.accepted(browser, browser.get(altered(browser.callback(scene.op), **right)))
    with scene.declaring():
        browser = scene.browser()
        page = browser.get(altered(browser.callback(scene.op), **wrong))
        scene.refused(browser, page, code)
        scene.no("a token was asked for" if scene.op.tokens else "")


def replayed_callback(scene: Scene) -> None:
    """A callback is visited a second time, with all cookies that were there the first time."""
    with scene.declaring():
        browser = scene.browser()
        callback, kept = browser.callback(scene.op), dict(browser.cookies)
        scene.accepted(browser, browser.get(callback))
        issued, alive = len(scene.op.tokens), len(scene.op.live_tokens)
        thief = scene.browser(cookies=kept)
        page = thief.get(callback)
        scene.no("a token was asked for" if len(scene.op.tokens) > issued else "")
        scene.refused(thief, page, "state_replayed", alive=alive)


def late_callback(scene: Scene) -> None:
    """A sign-in is finished after ten minutes and more."""
    for minutes, is_late in ((9.9, False), (10.1, True)):
        with scene.declaring():
            browser = scene.browser()
            begun = browser.begin()
            with later(timedelta(minutes=minutes)):
                page = browser.get(scene.op.authorize(begun.location, "amina"))
                if is_late:
                    scene.refused(browser, page, "state_expired")
                else:
                    scene.accepted(browser, page)


def replayed_token(scene: Scene) -> None:
    """The provider, or who stands in its place, gives the ID Token of an earlier sign-in."""
    with scene.declaring():
        browser = scene.browser()
        scene.accepted(browser, browser.sign_in(scene.op))
        earlier = scene.op.id_tokens[-1]
    with scene.declaring():
        tell = scene.tell()

        def replay(endpoint: str, exchange: Exchange) -> None:
            tell(endpoint, exchange)
            if endpoint == "id_token":
                exchange.token = earlier

        scene.op.mutate = replay
        browser = scene.browser()
        scene.refused(browser, browser.sign_in(scene.op), "token_replayed")


def foreign_authority(scene: Scene) -> None:
    """The provider's certificate is of an authority that the project does not trust."""
    with scene.declaring():
        browser = scene.browser()
        scene.accepted(browser, browser.sign_in(scene.op))
    with scene.declaring(ca_bundle=scene.other_ca):
        browser = scene.browser()
        scene.refused(browser, browser.begin(), "transport_tls")


def unknown_provider(scene: Scene) -> None:
    """A URL names a provider that nobody declared."""
    with scene.declaring():
        named = partial(reverse, "oidc_authentication_init")
        browser = scene.browser()
        begun = browser.begin(path=named(kwargs={"provider": scene.declared.name}))
        scene.must(begun.status == 302, f"the answer is {begun.status}")
        page = browser.begin(path=named(kwargs={"provider": "nobody"}))
        scene.refused(browser, page, "provider_unknown")


def lost_subject_key(scene: Scene) -> None:
    """A subject key is gone, so that nobody can be told to be new."""
    with scene.declaring():
        browser = scene.browser()
        scene.accepted(browser, browser.sign_in(scene.op, "amina"))
    other = {**settings.PHI_OIDC, "SUBJECT_KEYS": [keyring.generate()]}
    with override_settings(PHI_OIDC=other), scene.declaring():
        browser = scene.browser()
        scene.refused(browser, browser.sign_in(scene.op, "amina"), "subject_key_missing")


def unknown_person(scene: Scene) -> None:
    """Somebody signs in who has no account, where none is made."""
    fresh = replace(scene.op.state.accounts["amina"], username="stranger")
    scene.op.state.accounts["stranger"] = fresh
    with scene.declaring(provisioning="existing"):
        browser = scene.browser()
        scene.refused(browser, browser.sign_in(scene.op, "stranger"), "not_provisioned")
    with scene.declaring():
        browser = scene.browser()
        scene.accepted(browser, browser.sign_in(scene.op, "stranger"))


def deactivated_person(scene: Scene) -> None:
    """An account is deactivated while its person is signed in, and when they come again."""
    with scene.declaring():
        browser = scene.browser()
        account = get_user_model()._default_manager.filter(pk=scene.accepted(browser, browser.sign_in(scene.op)))
        scene.op.state.tokens.clear()
        account.update(is_active=False)
        try:
            scene.no("a session of the account lives" if scene.user(browser) else "")
            again = scene.browser()
            scene.refused(again, again.sign_in(scene.op), "user_inactive")
        finally:
            account.update(is_active=True)


def another_person(scene: Scene) -> None:
    """In a step-up somebody else answers than who is signed in."""
    with scene.declaring():
        browser = scene.browser()
        amina = scene.accepted(browser, browser.sign_in(scene.op, "amina"))
        scene.must(_step_up(scene, browser, "amina").status == 302, "no stronger sign-in")
        alive = len(scene.op.live_tokens)
        scene.portal.mark()
        page = _step_up(scene, browser, "jonas")
        seen = []
        if page.status != 403 or scene.portal.code() != "subject_changed":
            seen.append(f"the answer is {page.status}, the trail says {scene.portal.code() or 'nothing'}")
        if scene.user(browser) != amina:
            seen.append("another person is signed in")
        if len(scene.op.live_tokens) > alive:
            seen.append("tokens are left alive")
        scene.no("; ".join(seen))


def _step_up(scene: Scene, browser: Browser, username: str) -> Any:
    held = str(session_of(browser)[SESSION_KEY])
    url = step_up_url(Assurance(max_age=timedelta(minutes=5)), session=held, next_url="/", now=clock.now())
    return browser.get(scene.op.authorize(browser.get(url).location, username))


def local_account(scene: Scene) -> None:
    """Somebody guesses at the password of the local account; without one its door is not there."""
    name, door = conf.break_glass_account(), reverse("oidc_local_login")
    with scene.declaring():
        page = scene.browser().get(door)
        if not name:
            scene.no("" if page.status == 404 else f"there is no local account, and its door answers {page.status}")
            scene.skip("there is no local account")
        password = entropy.token_b64url(16)
        get_user_model()._default_manager.create_user(name, password=password)
        for given, is_right in ((password, True), (f"{password}x", False)):
            browser = scene.browser()
            csrf = csrf_token_of(browser)
            scene.portal.mark()
            page = browser.post(door, username=name, password=given, csrfmiddlewaretoken=csrf)
            if is_right:
                scene.accepted(browser, page)
            else:
                scene.refused(browser, page, "break_glass_refused")


def csrf_token_of(browser: Browser) -> str:
    """Return the token that a form in this browser bears, where Django looks for its other half."""
    secret = get_random_string(32)
    if settings.CSRF_USE_SESSIONS:
        session = session_of(browser)
        session[CSRF_SESSION_KEY] = secret
        session.save()
        browser.cookies[browser.session_cookie] = str(session.session_key)
    browser.cookies[settings.CSRF_COOKIE_NAME] = secret
    return secret


def session_of(browser: Browser) -> SessionBase:
    """Return the Django session of that browser's cookie."""
    engine: type[SessionBase] = import_string(f"{settings.SESSION_ENGINE}.SessionStore")
    return engine(browser.cookies.get(browser.session_cookie))


Run = Callable[[Scene], None]
ANSWERS: Mapping[tuple[str, str], Run] = {
    **{(code, ""): partial(altered_callback, code) for code in R4},
    ("state_replayed", ""): replayed_callback,
    ("state_expired", ""): late_callback,
    ("token_replayed", ""): replayed_token,
    ("transport_tls", ""): foreign_authority,
    ("provider_unknown", ""): unknown_provider,
    ("subject_key_missing", ""): lost_subject_key,
    ("not_provisioned", ""): unknown_person,
    ("user_inactive", ""): deactivated_person,
    ("subject_changed", ""): another_person,
    ("break_glass_refused", ""): local_account,
}
