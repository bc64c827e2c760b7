"""Attacks from browsers: forged or stolen states, codes, cookies, tokens, headers and
parameters.
"""

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

from django.conf import settings
from django.urls import reverse
from django.utils.crypto import get_random_string

from ... import conf
from ...audit.models import AuditEvent
from .browser import PortalResponse
from .environment import WHOAMI_PATH, AttackEnvironment, advance_clock, get_phi_oidc_setting
from .logout_attacks import (
    complete_sign_in_after_logout,
    replay_logout_token,
    send_logout_token_of_another_subject,
    send_logout_token_with_general_type,
)
from .provider_attacks import (
    AttackFunction,
    create_csrf_token,
    get_session,
    replace_query_parameters,
)

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
RELATIVE_URLS = ("?a", "#a", ".")
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
    """Login CSRF: the victim opens the callback of the attacker's sign-in."""
    with environment.override_declaration():
        attacker = environment.create_browser()
        victim = environment.create_browser()
        callback = attacker.get_callback_url(environment.op, "jonas")
        environment.assert_refused(victim, victim.get(callback), "state_unknown")
        environment.assert_accepted(attacker, attacker.get(callback))


def forge_next_url(environment: AttackEnvironment) -> None:
    """Open redirect: a sign-in link names an external `next` URL."""
    with environment.override_declaration():
        browser = environment.create_browser(default_next_url=WHOAMI_PATH)
        page = browser.sign_in(environment.op)
        environment.assert_accepted(browser, page)
        environment.assert_control(
            page.location == WHOAMI_PATH, "the sign-in does not lead to a page of the portal"
        )
        for url in EXTERNAL_URLS:
            browser = environment.create_browser()
            page = browser.sign_in(environment.op, next_url=url)
            if not environment.is_portal_url(page.location):
                environment.report_fault(f"the sign-in leads to {url!r}")


def forge_relative_next_url(environment: AttackEnvironment) -> None:
    """A sign-in link names a relative `next` URL, with which the callback would redirect to itself:
    an error page.
    """
    with environment.override_declaration():
        for url in RELATIVE_URLS:
            browser = environment.create_browser()
            callback = browser.get_callback_url(environment.op, next_url=url)
            page = browser.get(callback)
            environment.assert_accepted(browser, page)
            is_callback = urlsplit(urljoin(callback, page.location)).path == urlsplit(callback).path
            if is_callback:
                environment.report_fault(f"the callback redirects to itself with {url!r}")


def forge_request_parameters(environment: AttackEnvironment) -> None:
    """A sign-in link contains parameters of the authorization request."""
    with environment.override_declaration():
        browser = environment.create_browser()
        plain = get_authorization_parameters(environment, browser.start_sign_in())
        environment.assert_control(plain, "no authorization request")
        environment.assert_control(plain.get("code_challenge_method") == "S256", "no PKCE")
        forged = get_authorization_parameters(
            environment, browser.get(f"{browser.sign_in_url}?{urlencode(FORGED_PARAMETERS)}")
        )
        changed = _list_changed_parameters(plain=plain, forged=forged)
        if changed:
            environment.report_fault(f"the link changes {', '.join(changed)}")


def _list_changed_parameters(*, plain: Mapping[str, str], forged: Mapping[str, str]) -> list[str]:
    """Return the sorted names of the parameters that the forged link determines."""
    changed = []
    for name in sorted({*plain, *forged, *PER_REQUEST_PARAMETERS}):
        if name in PER_REQUEST_PARAMETERS:
            # The portal must choose a new value for each request.
            is_changed = forged.get(name) in (plain.get(name), FORGED_PARAMETERS.get(name))
        else:
            is_changed = forged.get(name) != plain.get(name)
        if is_changed:
            changed.append(name)
    return changed


def get_authorization_parameters(
    environment: AttackEnvironment, response: PortalResponse
) -> dict[str, str]:
    """Return the parameters of the authorization request, pushed or not."""
    parameters = dict(parse_qsl(urlsplit(response.location).query))
    if "request_uri" not in parameters:
        return parameters
    pushed_requests = []
    for request in environment.op.requests:
        if request.path == "/par":
            pushed_requests.append(request)
    return dict(pushed_requests[-1].parameters)


def forge_host_header(header: str, environment: AttackEnvironment) -> None:
    """A request has a forged Host or X-Forwarded-Host header."""
    allowing_setting = ""
    if header == "host" and "*" in settings.ALLOWED_HOSTS:
        allowing_setting = "ALLOWED_HOSTS"
    elif header == "x-forwarded-host" and settings.USE_X_FORWARDED_HOST:
        allowing_setting = "USE_X_FORWARDED_HOST"

    with environment.override_declaration():
        environment.assert_control(
            environment.create_browser().start_sign_in().status == 302, "no sign-in starts"
        )
        browser = environment.create_browser(headers={header: ATTACKER_HOST})
        parameters = get_authorization_parameters(environment, browser.start_sign_in())
        is_forged = ATTACKER_HOST in parameters.get("redirect_uri", "")
        if is_forged:
            environment.report_fault(
                "the redirect URI is on the forged host", allowing_setting=allowing_setting
            )


def forge_client_address(environment: AttackEnvironment) -> None:
    """A request has forged forwarding headers, so that the audit log gets a wrong address."""
    address = "203.0.113.77"
    headers = {"x-forwarded-for": address, "forwarded": f"for={address}", "x-real-ip": address}
    with environment.override_declaration():
        browser = environment.create_browser(headers=headers)
        environment.assert_accepted(browser, browser.sign_in(environment.op))

        if AuditEvent.objects.filter(client_ip=address).exists():
            fault = "the forged address is in the audit log"
        else:
            fault = ""

        if get_phi_oidc_setting().get("TRUSTED_PROXIES"):
            setting = "TRUSTED_PROXIES"
        else:
            setting = ""

        environment.report_fault(fault, allowing_setting=setting)


def fixate_session(environment: AttackEnvironment) -> None:
    """Session fixation: the attacker sets a session cookie in the victim's browser before the
    sign-in.
    """
    with environment.override_declaration():
        attacker = environment.create_browser()
        planted = get_session(attacker)
        planted["planted"] = True
        planted.save()
        attacker.cookies[attacker.session_cookie_name] = str(planted.session_key)
        victim = environment.create_browser(cookies=dict(attacker.cookies))
        environment.assert_accepted(victim, victim.sign_in(environment.op))
        is_same = victim.cookies.get(victim.session_cookie_name) == planted.session_key
        if is_same:
            environment.report_fault("the sign-in keeps the session key")
        is_signed_in = environment.find_signed_in_user(attacker)
        if is_signed_in:
            environment.report_fault("the planted cookie is signed in")


def forge_cross_site_logout(environment: AttackEnvironment) -> None:
    """A page of another site signs the user out, by an image or a form."""
    with environment.override_declaration():
        browser = environment.create_browser()
        amina = environment.assert_accepted(browser, browser.sign_in(environment.op))
        token = create_csrf_token(browser)
        browser.get(reverse("oidc_logout"))
        if environment.find_signed_in_user(browser) != amina:
            environment.report_fault("a link signs out")
        browser.headers = {
            "origin": f"https://{ATTACKER_HOST}",
            "referer": f"https://{ATTACKER_HOST}/",
        }
        for forged in ("", get_random_string(32)):
            browser.post(reverse("oidc_logout"), csrfmiddlewaretoken=forged)
            is_signed_in = environment.find_signed_in_user(browser) == amina
            if not is_signed_in:
                environment.report_fault("a form of another site signs out")
        browser.headers = {}
        browser.post(reverse("oidc_logout"), csrfmiddlewaretoken=token)
        environment.assert_control(
            not environment.find_signed_in_user(browser), "the sign-out does not work"
        )


def inject_stolen_code(environment: AttackEnvironment) -> None:
    """Code injection: the attacker uses a stolen code in a sign-in of their own. The provider
    verifies PKCE.
    """
    _inject_code(environment, "token_error", enforces_pkce=True)


def inject_stolen_code_without_pkce(environment: AttackEnvironment) -> None:
    """Code injection at a provider that does not verify PKCE."""
    _inject_code(environment, "token_replayed", enforces_pkce=False)


def _inject_code(
    environment: AttackEnvironment, expected_rule_code: str, *, enforces_pkce: bool
) -> None:
    with environment.override_declaration():
        browser = environment.create_browser()
        environment.assert_accepted(browser, browser.sign_in(environment.op))
    with environment.override_declaration():
        victim = environment.create_browser()
        stolen_code = dict(parse_qsl(urlsplit(victim.get_callback_url(environment.op)).query))[
            "code"
        ]
        attacker = environment.create_browser()
        callback = attacker.get_callback_url(environment.op, "jonas")
        victim_grant = environment.op.state.find_grant(stolen_code)
        if victim_grant is not None and not enforces_pkce:
            victim_grant.code_challenge = environment.op.last_grant.code_challenge
        page = attacker.get(replace_query_parameters(callback, code=stolen_code))
        environment.assert_refused(attacker, page, expected_rule_code)


def use_stolen_cookie(environment: AttackEnvironment) -> None:
    """The attacker has copied the victim's cookies, and the victim signs out."""
    with environment.override_declaration():
        browser = environment.create_browser()
        amina = environment.assert_accepted(browser, browser.sign_in(environment.op))
        attacker = environment.create_browser(cookies=dict(browser.cookies))
        environment.assert_control(
            environment.find_signed_in_user(attacker) == amina, "the cookie is not signed in"
        )
        browser.post(reverse("oidc_logout"), csrfmiddlewaretoken=create_csrf_token(browser))
        with advance_clock(2 * conf.session_recheck()):
            is_signed_in = environment.find_signed_in_user(attacker)
            if is_signed_in:
                environment.report_fault("the cookie is still signed in")


def use_cookie_after_idle_timeout(environment: AttackEnvironment) -> None:
    """The attacker uses the victim's browser after the idle timeout."""
    with environment.override_declaration():
        browser = environment.create_browser()
        amina = environment.assert_accepted(browser, browser.sign_in(environment.op))
        environment.assert_control(
            environment.find_signed_in_user(browser) == amina, "the cookie is not signed in"
        )
        with advance_clock(conf.idle_timeout() + timedelta(minutes=2)):
            is_signed_in = environment.find_signed_in_user(browser)
            if is_signed_in:
                environment.report_fault("the cookie is still signed in")


def use_stolen_tokens_after_logout(environment: AttackEnvironment) -> None:
    """The attacker has copied the victim's tokens, and the victim signs out."""
    if environment.declaration.tokens == "discard":
        environment.skip_attack("the project stores no tokens")
    with environment.override_declaration():
        browser = environment.create_browser()
        environment.assert_accepted(browser, browser.sign_in(environment.op))
        kinds = set()
        for token in environment.op.active_tokens:
            kinds.add(token.kind)
        environment.assert_control("refresh_token" in kinds, "the provider issued no refresh token")
        browser.post(reverse("oidc_logout"), csrfmiddlewaretoken=create_csrf_token(browser))
        faults = []
        for token in environment.op.active_tokens:
            faults.append(f"{token.kind} is still valid")
        environment.report_fault("; ".join(faults))


BROWSER_ATTACKS: Mapping[tuple[str, str], AttackFunction] = {
    ("state_unknown", "of another browser"): use_state_of_another_browser,
    ("forged_next", ""): forge_next_url,
    ("forged_next", "relative"): forge_relative_next_url,
    ("forged_parameters", ""): forge_request_parameters,
    ("forged_host", "Host"): partial(forge_host_header, "host"),
    ("forged_host", "X-Forwarded-Host"): partial(forge_host_header, "x-forwarded-host"),
    ("forged_address", ""): forge_client_address,
    ("session_fixation", ""): fixate_session,
    ("cross_site_logout", ""): forge_cross_site_logout,
    ("token_error", "a stolen code"): inject_stolen_code,
    ("token_replayed", "a stolen code without PKCE"): inject_stolen_code_without_pkce,
    ("logout_token_replayed", ""): replay_logout_token,
    ("logged_out", ""): complete_sign_in_after_logout,
    ("ignored_logout", "typ JWT"): send_logout_token_with_general_type,
    ("ignored_logout", "another sub"): send_logout_token_of_another_subject,
    ("stolen_cookie", ""): use_stolen_cookie,
    ("stolen_cookie", "after the idle timeout"): use_cookie_after_idle_timeout,
    ("stolen_refresh_token", ""): use_stolen_tokens_after_logout,
}
