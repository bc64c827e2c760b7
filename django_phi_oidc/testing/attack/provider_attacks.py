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

from ... import conf
from ..._internal import clock, randomness
from ...access.policy import Assurance
from ...access.step_up import create_step_up_url
from ...audit.request_context import SESSION_KEY
from ...crypto import keyring
from ..mock_provider import MutableExchange
from .browser import Browser
from .environment import AttackEnvironment, advance_clock
from .tampering import OMITTED

# code -> (what the browser brings back, a callback that differs in that one thing and is accepted)
CALLBACK_PARAMETER_CASES: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "state_missing": ({"state": OMITTED}, {}),
    "state_unknown": ({"state": "x" * 43}, {}),
    "iss_mismatch": ({"iss": "https://elsewhere.example"}, {}),
    "iss_missing": ({"iss": OMITTED}, {}),
    "provider_error": ({"error": "access_denied"}, {"remark": "access_denied"}),
    "parameter_repeated": ({"code": ["a", "b"]}, {"remark": ["a", "b"]}),
    "code_missing": ({"code": OMITTED}, {}),
}


def replace_query_parameters(url: str, **changes: Any) -> str:
    """Return url with parameters replaced, left out (NO) or repeated (a list)."""
    parts = urlsplit(url)
    query = {**dict(parse_qsl(parts.query)), **changes}
    return parts._replace(query=urlencode({k: v for k, v in query.items() if v is not OMITTED}, doseq=True)).geturl()


def alter_callback(code: str, environment: AttackEnvironment) -> None:
    """What the browser brings back differs in one thing from what the provider gave it."""
    wrong, right = CALLBACK_PARAMETER_CASES[code]
    with environment.override_declaration():
        browser = environment.create_browser()
        environment.assert_accepted(
            browser, browser.get(replace_query_parameters(browser.get_callback_url(environment.op), **right))
        )
    with environment.override_declaration():
        browser = environment.create_browser()
        page = browser.get(replace_query_parameters(browser.get_callback_url(environment.op), **wrong))
        environment.assert_refused(browser, page, code)
        environment.report_fault("a token was asked for" if environment.op.tokens else "")


def replay_callback(environment: AttackEnvironment) -> None:
    """A callback is visited a second time, with all cookies that were there the first time."""
    with environment.override_declaration():
        browser = environment.create_browser()
        callback, kept = browser.get_callback_url(environment.op), dict(browser.cookies)
        environment.assert_accepted(browser, browser.get(callback))
        issued, alive = len(environment.op.tokens), len(environment.op.active_tokens)
        thief = environment.create_browser(cookies=kept)
        page = thief.get(callback)
        environment.report_fault("a token was asked for" if len(environment.op.tokens) > issued else "")
        environment.assert_refused(thief, page, "state_replayed", allowed_active_tokens=alive)


def finish_sign_in_late(environment: AttackEnvironment) -> None:
    """A sign-in is finished after ten minutes and more."""
    for minutes, is_late in ((9.9, False), (10.1, True)):
        with environment.override_declaration():
            browser = environment.create_browser()
            begun = browser.start_sign_in()
            with advance_clock(timedelta(minutes=minutes)):
                page = browser.get(environment.op.authorize(begun.location, "amina"))
                if is_late:
                    environment.assert_refused(browser, page, "state_expired")
                else:
                    environment.assert_accepted(browser, page)


def replay_id_token(environment: AttackEnvironment) -> None:
    """The provider, or who stands in its place, gives the ID Token of an earlier sign-in."""
    with environment.override_declaration():
        browser = environment.create_browser()
        environment.assert_accepted(browser, browser.sign_in(environment.op))
        earlier = environment.op.id_tokens[-1]
    with environment.override_declaration():
        tell = environment.create_honest_hook()

        def replay(endpoint: str, exchange: MutableExchange) -> None:
            tell(endpoint, exchange)
            if endpoint == "id_token":
                exchange.token = earlier

        environment.op.mutate = replay
        browser = environment.create_browser()
        environment.assert_refused(browser, browser.sign_in(environment.op), "token_replayed")


def use_untrusted_certificate_authority(environment: AttackEnvironment) -> None:
    """The provider's certificate is of an authority that the project does not trust."""
    with environment.override_declaration():
        browser = environment.create_browser()
        environment.assert_accepted(browser, browser.sign_in(environment.op))
    with environment.override_declaration(ca_bundle=environment.untrusted_ca_bundle):
        browser = environment.create_browser()
        environment.assert_refused(browser, browser.start_sign_in(), "transport_tls")


def request_unknown_provider(environment: AttackEnvironment) -> None:
    """A URL names a provider that nobody declared."""
    with environment.override_declaration():
        named = partial(reverse, "oidc_authentication_init")
        browser = environment.create_browser()
        begun = browser.start_sign_in(path=named(kwargs={"provider": environment.declaration.name}))
        environment.assert_control(begun.status == 302, f"the answer is {begun.status}")
        page = browser.start_sign_in(path=named(kwargs={"provider": "nobody"}))
        environment.assert_refused(browser, page, "provider_unknown")


def remove_subject_key(environment: AttackEnvironment) -> None:
    """A subject key is gone, so that nobody can be told to be new."""
    with environment.override_declaration():
        browser = environment.create_browser()
        environment.assert_accepted(browser, browser.sign_in(environment.op, "amina"))
    declared: Any = settings.PHI_OIDC
    keys = {**declared["KEYS"], "subject": [keyring.generate_key()]}
    with override_settings(PHI_OIDC={**declared, "KEYS": keys}), environment.override_declaration():
        browser = environment.create_browser()
        environment.assert_refused(browser, browser.sign_in(environment.op, "amina"), "subject_key_missing")


def sign_in_without_account(environment: AttackEnvironment) -> None:
    """Somebody signs in who has no account, where none is made."""
    fresh = replace(environment.op.state.accounts["amina"], username="stranger")
    environment.op.state.accounts["stranger"] = fresh
    with environment.override_declaration(provisioning="existing"):
        browser = environment.create_browser()
        environment.assert_refused(browser, browser.sign_in(environment.op, "stranger"), "not_provisioned")
    with environment.override_declaration():
        browser = environment.create_browser()
        environment.assert_accepted(browser, browser.sign_in(environment.op, "stranger"))


def sign_in_with_deactivated_account(environment: AttackEnvironment) -> None:
    """An account is deactivated while its person is signed in, and when they come again."""
    with environment.override_declaration():
        browser = environment.create_browser()
        account = get_user_model()._default_manager.filter(
            pk=environment.assert_accepted(browser, browser.sign_in(environment.op))
        )
        environment.op.state.tokens.clear()
        account.update(is_active=False)
        try:
            environment.report_fault(
                "a session of the account lives" if environment.find_signed_in_user(browser) else ""
            )
            again = environment.create_browser()
            environment.assert_refused(again, again.sign_in(environment.op), "user_inactive")
        finally:
            account.update(is_active=True)


def step_up_as_another_user(environment: AttackEnvironment) -> None:
    """In a step-up somebody else answers than who is signed in."""
    with environment.override_declaration():
        browser = environment.create_browser()
        amina = environment.assert_accepted(browser, browser.sign_in(environment.op, "amina"))
        environment.assert_control(_step_up(environment, browser, "amina").status == 302, "no stronger sign-in")
        alive = len(environment.op.active_tokens)
        environment.portal.mark_refusals_seen()
        page = _step_up(environment, browser, "jonas")
        seen = []
        if page.status != 403 or environment.portal.find_refusal_code() != "subject_changed":
            seen.append(
                f"the answer is {page.status}, the trail says {environment.portal.find_refusal_code() or 'nothing'}"
            )
        if environment.find_signed_in_user(browser) != amina:
            seen.append("another person is signed in")
        if len(environment.op.active_tokens) > alive:
            seen.append("tokens are left alive")
        environment.report_fault("; ".join(seen))


def _step_up(environment: AttackEnvironment, browser: Browser, username: str) -> Any:
    held = str(get_session(browser)[SESSION_KEY])
    url = create_step_up_url(Assurance(max_age=timedelta(minutes=5)), session_id=held, next_url="/", now=clock.now())
    return browser.get(environment.op.authorize(browser.get(url).location, username))


def guess_local_account_password(environment: AttackEnvironment) -> None:
    """Somebody guesses at the password of the local account; without one its door is not there."""
    name, door = conf.break_glass_account(), reverse("oidc_local_login")
    with environment.override_declaration():
        page = environment.create_browser().get(door)
        if not name:
            environment.report_fault(
                "" if page.status == 404 else f"there is no local account, and its door answers {page.status}"
            )
            environment.skip_attack("there is no local account")
        password = randomness.token_b64url(16)
        get_user_model()._default_manager.create_user(name, password=password)
        for given, is_right in ((password, True), (f"{password}x", False)):
            browser = environment.create_browser()
            csrf = create_csrf_token(browser)
            environment.portal.mark_refusals_seen()
            page = browser.post(door, username=name, password=given, csrfmiddlewaretoken=csrf)
            if is_right:
                environment.assert_accepted(browser, page)
            else:
                environment.assert_refused(browser, page, "break_glass_refused")


def create_csrf_token(browser: Browser) -> str:
    """Return the token that a form in this browser bears, where Django looks for its other half."""
    secret = get_random_string(32)
    if settings.CSRF_USE_SESSIONS:
        session = get_session(browser)
        session[CSRF_SESSION_KEY] = secret
        session.save()
        browser.cookies[browser.session_cookie_name] = str(session.session_key)
    browser.cookies[settings.CSRF_COOKIE_NAME] = secret
    return secret


def get_session(browser: Browser) -> SessionBase:
    """Return the Django session of that browser's cookie."""
    engine: type[SessionBase] = import_string(f"{settings.SESSION_ENGINE}.SessionStore")
    return engine(browser.cookies.get(browser.session_cookie_name))


AttackFunction = Callable[[AttackEnvironment], None]
CALLBACK_AND_ACCOUNT_ATTACKS: Mapping[tuple[str, str], AttackFunction] = {
    **{(code, ""): partial(alter_callback, code) for code in CALLBACK_PARAMETER_CASES},
    ("state_replayed", ""): replay_callback,
    ("state_expired", ""): finish_sign_in_late,
    ("token_replayed", ""): replay_id_token,
    ("transport_tls", ""): use_untrusted_certificate_authority,
    ("provider_unknown", ""): request_unknown_provider,
    ("subject_key_missing", ""): remove_subject_key,
    ("not_provisioned", ""): sign_in_without_account,
    ("user_inactive", ""): sign_in_with_deactivated_account,
    ("subject_changed", ""): step_up_as_another_user,
    ("break_glass_refused", ""): guess_local_account_password,
}
