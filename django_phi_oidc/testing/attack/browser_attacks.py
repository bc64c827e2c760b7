"""Hostile browsers and thieves: forged and stolen states, codes, cookies and tokens, headers, parameters, pages."""

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from urllib.parse import parse_qsl, urlencode, urlsplit

from django.conf import settings
from django.urls import reverse
from django.utils.crypto import get_random_string

from ... import conf
from ...audit.models import AuditEvent
from .browser import PortalResponse
from .environment import WHOAMI_PATH, AttackEnvironment, advance_clock, get_phi_oidc_setting
from .logout_attacks import replay_logout_token
from .provider_attacks import AttackFunction, create_csrf_token, get_session, replace_query_parameters

ATTACKER_HOST = "evil.example"
EXTERNAL_URLS = (
    f"https://{ATTACKER_HOST}/",
    f"//{ATTACKER_HOST}/",
    f"/\\{ATTACKER_HOST}/",
    f"\\\\{ATTACKER_HOST}/",
    f"https:{ATTACKER_HOST}/",
    f"/%09/{ATTACKER_HOST}/",
    f"/\t/{ATTACKER_HOST}/",
    f"https://testserver@{ATTACKER_HOST}/",
    f"http:///{ATTACKER_HOST}/",
    "javascript:alert(1)",
    "data:text/html,x",
    f"/\r\nLocation: https://{ATTACKER_HOST}/",
)
FORGED_PARAMETERS = {
    "redirect_uri": f"https://{ATTACKER_HOST}/",
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
    "request_uri": f"https://{ATTACKER_HOST}/",
}
PER_REQUEST_PARAMETERS = {"state", "nonce", "code_challenge"}


def use_state_of_another_browser(environment: AttackEnvironment) -> None:
    """A person is led to the callback of a sign-in that somebody else began, to be signed in as them."""
    with environment.override_declaration():
        attacker, victim = environment.create_browser(), environment.create_browser()
        callback = attacker.get_callback_url(environment.op, "jonas")
        environment.assert_refused(victim, victim.get(callback), "state_unknown")
        environment.assert_accepted(attacker, attacker.get(callback))


def forge_next_url(environment: AttackEnvironment) -> None:
    """A link to the sign-in names a page elsewhere."""
    with environment.override_declaration():
        browser = environment.create_browser(default_next_url=WHOAMI_PATH)
        page = browser.sign_in(environment.op)
        environment.assert_accepted(browser, page)
        environment.assert_control(page.location == WHOAMI_PATH, "a page of the portal's own is not gone to")
        for url in EXTERNAL_URLS:
            browser = environment.create_browser()
            page = browser.sign_in(environment.op, next_url=url)
            environment.report_fault(
                "" if environment.is_portal_url(page.location) else f"the sign-in leads to {url!r}"
            )


def forge_request_parameters(environment: AttackEnvironment) -> None:
    """A link to the sign-in says what is to be asked of the provider."""
    with environment.override_declaration():
        browser = environment.create_browser()
        plain = _get_authorization_parameters(environment, browser.start_sign_in())
        environment.assert_control(plain, "no authorization request")
        environment.assert_control(plain.get("code_challenge_method") == "S256", "no PKCE")
        forged = _get_authorization_parameters(
            environment, browser.get(f"{browser.sign_in_url}?{urlencode(FORGED_PARAMETERS)}")
        )
        changed = sorted(
            {name for name in {*plain, *forged} - PER_REQUEST_PARAMETERS if plain.get(name) != forged.get(name)}
            | {
                name
                for name in PER_REQUEST_PARAMETERS
                if forged.get(name) in (plain.get(name), FORGED_PARAMETERS.get(name))
            }
        )
        environment.report_fault(f"the request shapes {', '.join(changed)}" if changed else "")


def _get_authorization_parameters(environment: AttackEnvironment, response: PortalResponse) -> dict[str, str]:
    """Return the parameters of the authorization request, pushed or not."""
    asked = dict(parse_qsl(urlsplit(response.location).query))
    if "request_uri" in asked:
        pushes = [request.parameters for request in environment.op.requests if request.path == "/par"]
        return dict(pushes[-1])
    return asked


def forge_host_header(header: str, environment: AttackEnvironment) -> None:
    """A request says of itself that it came to another host."""
    chosen = {"host": "*" in settings.ALLOWED_HOSTS, "x-forwarded-host": settings.USE_X_FORWARDED_HOST}
    names = {"host": "ALLOWED_HOSTS", "x-forwarded-host": "USE_X_FORWARDED_HOST"}
    with environment.override_declaration():
        environment.assert_control(environment.create_browser().start_sign_in().status == 302, "no sign-in begins")
        browser = environment.create_browser(headers={header: ATTACKER_HOST})
        asked = _get_authorization_parameters(environment, browser.start_sign_in())
        told = "the provider is told to answer there" if ATTACKER_HOST in asked.get("redirect_uri", "") else ""
        environment.report_fault(told, allowing_setting=names[header] if chosen[header] else "")


def forge_client_address(environment: AttackEnvironment) -> None:
    """A request says of itself that it came from another address, to be another in the trail."""
    address = "203.0.113.77"
    with environment.override_declaration():
        browser = environment.create_browser(
            headers={"x-forwarded-for": address, "forwarded": f"for={address}", "x-real-ip": address}
        )
        environment.assert_accepted(browser, browser.sign_in(environment.op))
        environment.report_fault(
            "the trail believes the browser" if AuditEvent.objects.filter(client_ip=address).exists() else "",
            allowing_setting="TRUSTED_PROXIES" if get_phi_oidc_setting().get("TRUSTED_PROXIES") else "",
        )


def fixate_session(environment: AttackEnvironment) -> None:
    """A session's cookie is planted in a browser before its person signs in."""
    with environment.override_declaration():
        attacker = environment.create_browser()
        planted = get_session(attacker)
        planted["planted"] = True
        planted.save()
        attacker.cookies[attacker.session_cookie_name] = str(planted.session_key)
        victim = environment.create_browser(cookies=dict(attacker.cookies))
        environment.assert_accepted(victim, victim.sign_in(environment.op))
        same = victim.cookies.get(victim.session_cookie_name) == planted.session_key
        environment.report_fault("the session keeps its key" if same else "")
        environment.report_fault("the planted cookie is signed in" if environment.find_signed_in_user(attacker) else "")


def forge_cross_site_logout(environment: AttackEnvironment) -> None:
    """Another site's page asks for the sign-out: by an image, by a form."""
    with environment.override_declaration():
        browser = environment.create_browser()
        amina = environment.assert_accepted(browser, browser.sign_in(environment.op))
        token = create_csrf_token(browser)
        browser.get(reverse("oidc_logout"))
        environment.report_fault("" if environment.find_signed_in_user(browser) == amina else "a link signs out")
        browser.headers = {"origin": f"https://{ATTACKER_HOST}", "referer": f"https://{ATTACKER_HOST}/"}
        for forged in ("", get_random_string(32)):
            browser.post(reverse("oidc_logout"), csrfmiddlewaretoken=forged)
            environment.report_fault(
                "" if environment.find_signed_in_user(browser) == amina else "a form of another site signs out"
            )
        browser.headers = {}
        browser.post(reverse("oidc_logout"), csrfmiddlewaretoken=token)
        environment.assert_control(not environment.find_signed_in_user(browser), "nobody can sign out")


def inject_stolen_code(environment: AttackEnvironment) -> None:
    """A thief takes a code to the callback of a sign-in of their own; the provider heeds PKCE."""
    _inject_code(environment, "token_error", enforces_pkce=True)


def inject_stolen_code_without_pkce(environment: AttackEnvironment) -> None:
    """The same, at a provider that does not."""
    _inject_code(environment, "token_replayed", enforces_pkce=False)


def _inject_code(environment: AttackEnvironment, expected_rule_code: str, *, enforces_pkce: bool) -> None:
    with environment.override_declaration():
        browser = environment.create_browser()
        environment.assert_accepted(browser, browser.sign_in(environment.op))
    with environment.override_declaration():
        stolen = dict(parse_qsl(urlsplit(environment.create_browser().get_callback_url(environment.op)).query))["code"]
        thief = environment.create_browser()
        callback = thief.get_callback_url(environment.op, "jonas")
        own = environment.op.last_grant
        victims = environment.op.state.find_grant(stolen)
        if victims is not None and not enforces_pkce:
            victims.code_challenge = own.code_challenge
        environment.assert_refused(
            thief, thief.get(replace_query_parameters(callback, code=stolen)), expected_rule_code
        )


def use_stolen_cookie(environment: AttackEnvironment) -> None:
    """A thief has the cookies of somebody who signs out."""
    with environment.override_declaration():
        browser = environment.create_browser()
        amina = environment.assert_accepted(browser, browser.sign_in(environment.op))
        thief = environment.create_browser(cookies=dict(browser.cookies))
        environment.assert_control(environment.find_signed_in_user(thief) == amina, "the cookie says nobody")
        browser.post(reverse("oidc_logout"), csrfmiddlewaretoken=create_csrf_token(browser))
        with advance_clock(2 * conf.session_recheck()):
            environment.report_fault("the cookie is signed in still" if environment.find_signed_in_user(thief) else "")


def use_cookie_after_idle_timeout(environment: AttackEnvironment) -> None:
    """Somebody comes to a browser whose person went away without signing out."""
    with environment.override_declaration():
        browser = environment.create_browser()
        amina = environment.assert_accepted(browser, browser.sign_in(environment.op))
        environment.assert_control(environment.find_signed_in_user(browser) == amina, "the cookie says nobody")
        with advance_clock(conf.idle_timeout() + timedelta(minutes=2)):
            environment.report_fault(
                "the cookie is signed in still" if environment.find_signed_in_user(browser) else ""
            )


def use_stolen_tokens_after_logout(environment: AttackEnvironment) -> None:
    """A thief has the tokens of somebody who signs out."""
    if environment.declaration.tokens == "discard":
        environment.skip_attack("the project keeps no token")
    with environment.override_declaration():
        browser = environment.create_browser()
        environment.assert_accepted(browser, browser.sign_in(environment.op))
        stolen = {token.kind for token in environment.op.active_tokens}
        environment.assert_control("refresh_token" in stolen, "the provider gave no refresh token")
        browser.post(reverse("oidc_logout"), csrfmiddlewaretoken=create_csrf_token(browser))
        environment.report_fault("; ".join(f"the {token.kind} lives" for token in environment.op.active_tokens))


BROWSER_ATTACKS: Mapping[tuple[str, str], AttackFunction] = {
    ("state_unknown", "of another browser"): use_state_of_another_browser,
    ("forged_next", ""): forge_next_url,
    ("forged_parameters", ""): forge_request_parameters,
    ("forged_host", "Host"): partial(forge_host_header, "host"),
    ("forged_host", "X-Forwarded-Host"): partial(forge_host_header, "x-forwarded-host"),
    ("forged_address", ""): forge_client_address,
    ("session_fixation", ""): fixate_session,
    ("cross_site_logout", ""): forge_cross_site_logout,
    ("token_error", "a stolen code"): inject_stolen_code,
    ("token_replayed", "a stolen code without PKCE"): inject_stolen_code_without_pkce,
    ("logout_token_replayed", ""): replay_logout_token,
    ("stolen_cookie", ""): use_stolen_cookie,
    ("stolen_cookie", "after the idle timeout"): use_cookie_after_idle_timeout,
    ("stolen_refresh_token", ""): use_stolen_tokens_after_logout,
}
