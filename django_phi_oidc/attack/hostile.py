"""Hostile browsers and thieves: forged and stolen states, codes, cookies and tokens, headers, parameters, pages."""

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from urllib.parse import parse_qsl, urlencode, urlsplit

from django.conf import settings
from django.urls import reverse
from django.utils.crypto import get_random_string

from .. import conf
from ..audit.models import AuditEvent
from .answers import Run, altered, csrf_token_of, session_of
from .browser import Page
from .logouts import replayed_logout
from .scene import WHO, Scene, later, phi_oidc

EVIL = "evil.example"
ELSEWHERE = (
    f"https://{EVIL}/",
    f"//{EVIL}/",
    f"/\\{EVIL}/",
    f"\\\\{EVIL}/",
    f"https:{EVIL}/",
    f"/%09/{EVIL}/",
    f"/\t/{EVIL}/",
    f"https://testserver@{EVIL}/",
    f"http:///{EVIL}/",
    "javascript:alert(1)",
    "data:text/html,x",
    f"/\r\nLocation: https://{EVIL}/",
)
ASKED = {
    "redirect_uri": f"https://{EVIL}/",
    "client_id": "another",
    "scope": "openid everything",
    "acr_values": "0",
    "prompt": "none",
    "max_age": "999999",
    "response_mode": "form_post",
    "response_type": "token",
    "login_hint": "jonas",
    "state": "x",
    "nonce": "x",
    "code_challenge": "x",
    "code_challenge_method": "plain",
    "claims": "{}",
    "request_uri": f"https://{EVIL}/",
}
FRESH = {"state", "nonce", "code_challenge"}


def state_of_another_browser(scene: Scene) -> None:
    """A person is led to the callback of a sign-in that somebody else began, to be signed in as them."""
    with scene.declaring():
        attacker, victim = scene.browser(), scene.browser()
        callback = attacker.callback(scene.op, "jonas")
        scene.refused(victim, victim.get(callback), "state_unknown")
        scene.accepted(attacker, attacker.get(callback))


def forged_next(scene: Scene) -> None:
    """A link to the sign-in names a page elsewhere."""
    with scene.declaring():
        browser = scene.browser(home=WHO)
        page = browser.sign_in(scene.op)
        scene.accepted(browser, page)
        scene.must(page.location == WHO, "a page of the portal's own is not gone to")
        for url in ELSEWHERE:
            browser = scene.browser()
            page = browser.sign_in(scene.op, next_url=url)
            scene.no("" if scene.is_here(page.location) else f"the sign-in leads to {url!r}")


def forged_parameters(scene: Scene) -> None:
    """A link to the sign-in says what is to be asked of the provider."""
    with scene.declaring():
        browser = scene.browser()
        plain = _asked(scene, browser.begin())
        scene.must(plain, "no authorization request")
        scene.must(plain.get("code_challenge_method") == "S256", "no PKCE")
        forged = _asked(scene, browser.get(f"{browser.door}?{urlencode(ASKED)}"))
        changed = sorted(
            {name for name in {*plain, *forged} - FRESH if plain.get(name) != forged.get(name)}
            | {name for name in FRESH if forged.get(name) in (plain.get(name), ASKED.get(name))}
        )
        scene.no(f"the request shapes {', '.join(changed)}" if changed else "")


def _asked(scene: Scene, page: Page) -> dict[str, str]:
    """Return the parameters of the authorization request, pushed or not."""
    asked = dict(parse_qsl(urlsplit(page.location).query))
    if "request_uri" in asked:
        pushes = [request.parameters for request in scene.op.requests if request.path == "/par"]
        return dict(pushes[-1])
    return asked


def forged_host(header: str, scene: Scene) -> None:
    """A request says of itself that it came to another host."""
    chosen = {"host": "*" in settings.ALLOWED_HOSTS, "x-forwarded-host": settings.USE_X_FORWARDED_HOST}
    names = {"host": "ALLOWED_HOSTS", "x-forwarded-host": "USE_X_FORWARDED_HOST"}
    with scene.declaring():
        scene.must(scene.browser().begin().status == 302, "no sign-in begins")
        browser = scene.browser(headers={header: EVIL})
        asked = _asked(scene, browser.begin())
        told = "the provider is told to answer there" if EVIL in asked.get("redirect_uri", "") else ""
        scene.no(told, by_choice=names[header] if chosen[header] else "")


def forged_address(scene: Scene) -> None:
    """A request says of itself that it came from another address, to be another in the trail."""
    address = "203.0.113.77"
    with scene.declaring():
        browser = scene.browser(
            headers={"x-forwarded-for": address, "forwarded": f"for={address}", "x-real-ip": address}
        )
        scene.accepted(browser, browser.sign_in(scene.op))
        scene.no(
            "the trail believes the browser" if AuditEvent.objects.filter(client_ip=address).exists() else "",
            by_choice="TRUSTED_PROXIES" if phi_oidc().get("TRUSTED_PROXIES") else "",
        )


def session_fixation(scene: Scene) -> None:
    """A session's cookie is planted in a browser before its person signs in."""
    with scene.declaring():
        attacker = scene.browser()
        planted = session_of(attacker)
        planted["planted"] = True
        planted.save()
        attacker.cookies[attacker.session_cookie] = str(planted.session_key)
        victim = scene.browser(cookies=dict(attacker.cookies))
        scene.accepted(victim, victim.sign_in(scene.op))
        same = victim.cookies.get(victim.session_cookie) == planted.session_key
        scene.no("the session keeps its key" if same else "")
        scene.no("the planted cookie is signed in" if scene.user(attacker) else "")


def cross_site_logout(scene: Scene) -> None:
    """Another site's page asks for the sign-out: by an image, by a form."""
    with scene.declaring():
        browser = scene.browser()
        amina = scene.accepted(browser, browser.sign_in(scene.op))
        token = csrf_token_of(browser)
        browser.get(reverse("oidc_logout"))
        scene.no("" if scene.user(browser) == amina else "a link signs out")
        browser.headers = {"origin": f"https://{EVIL}", "referer": f"https://{EVIL}/"}
        for forged in ("", get_random_string(32)):
            browser.post(reverse("oidc_logout"), csrfmiddlewaretoken=forged)
            scene.no("" if scene.user(browser) == amina else "a form of another site signs out")
        browser.headers = {}
        browser.post(reverse("oidc_logout"), csrfmiddlewaretoken=token)
        scene.must(not scene.user(browser), "nobody can sign out")


def stolen_code(scene: Scene) -> None:
    """A thief takes a code to the callback of a sign-in of their own; the provider heeds PKCE."""
    _inject(scene, "token_error", heeds_pkce=True)


def stolen_code_without_pkce(scene: Scene) -> None:
    """The same, at a provider that does not."""
    _inject(scene, "token_replayed", heeds_pkce=False)


def _inject(scene: Scene, code: str, *, heeds_pkce: bool) -> None:
    with scene.declaring():
        browser = scene.browser()
        scene.accepted(browser, browser.sign_in(scene.op))
    with scene.declaring():
        stolen = dict(parse_qsl(urlsplit(scene.browser().callback(scene.op)).query))["code"]
        thief = scene.browser()
        callback = thief.callback(scene.op, "jonas")
        own = scene.op.last_grant
        victims = scene.op.state.find_grant(stolen)
        if victims is not None and not heeds_pkce:
            victims.code_challenge = own.code_challenge
        scene.refused(thief, thief.get(altered(callback, code=stolen)), code)


def stolen_cookie(scene: Scene) -> None:
    """A thief has the cookies of somebody who signs out."""
    with scene.declaring():
        browser = scene.browser()
        amina = scene.accepted(browser, browser.sign_in(scene.op))
        thief = scene.browser(cookies=dict(browser.cookies))
        scene.must(scene.user(thief) == amina, "the cookie says nobody")
        browser.post(reverse("oidc_logout"), csrfmiddlewaretoken=csrf_token_of(browser))
        with later(2 * conf.session_recheck()):
            scene.no("the cookie is signed in still" if scene.user(thief) else "")


def forgotten_cookie(scene: Scene) -> None:
    """Somebody comes to a browser whose person went away without signing out."""
    with scene.declaring():
        browser = scene.browser()
        amina = scene.accepted(browser, browser.sign_in(scene.op))
        scene.must(scene.user(browser) == amina, "the cookie says nobody")
        with later(conf.idle_timeout() + timedelta(minutes=2)):
            scene.no("the cookie is signed in still" if scene.user(browser) else "")


def stolen_refresh_token(scene: Scene) -> None:
    """A thief has the tokens of somebody who signs out."""
    if scene.declared.tokens == "discard":
        scene.skip("the project keeps no token")
    with scene.declaring():
        browser = scene.browser()
        scene.accepted(browser, browser.sign_in(scene.op))
        stolen = {token.kind for token in scene.op.live_tokens}
        scene.must("refresh_token" in stolen, "the provider gave no refresh token")
        browser.post(reverse("oidc_logout"), csrfmiddlewaretoken=csrf_token_of(browser))
        scene.no("; ".join(f"the {token.kind} lives" for token in scene.op.live_tokens))


HOSTILE: Mapping[tuple[str, str], Run] = {
    ("state_unknown", "of another browser"): state_of_another_browser,
    ("forged_next", ""): forged_next,
    ("forged_parameters", ""): forged_parameters,
    ("forged_host", "Host"): partial(forged_host, "host"),
    ("forged_host", "X-Forwarded-Host"): partial(forged_host, "x-forwarded-host"),
    ("forged_address", ""): forged_address,
    ("session_fixation", ""): session_fixation,
    ("cross_site_logout", ""): cross_site_logout,
    ("token_error", "a stolen code"): stolen_code,
    ("token_replayed", "a stolen code without PKCE"): stolen_code_without_pkce,
    ("logout_token_replayed", ""): replayed_logout,
    ("stolen_cookie", ""): stolen_cookie,
    ("stolen_cookie", "after the idle timeout"): forgotten_cookie,
    ("stolen_refresh_token", ""): stolen_refresh_token,
}
