"""Attacks with forged ciphertexts: a cookie or parameter that the portal did not encrypt, or under
another kind of key.

The portal must treat them as missing. An error page, with a mail to the administrators, would be a
fault: any site of the same domain can set such a cookie, and would lock the user out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

from django.urls import reverse

from ...crypto import keyring
from .browser import Browser, PortalResponse
from .environment import AttackEnvironment
from .provider_attacks import (
    AttackFunction,
    create_csrf_token,
    create_step_up_link,
    replace_query_parameters,
)

# The attack environment uses https.
STATE_COOKIE_PREFIX = "__Host-phi_oidc_"
ACTIVATION_COOKIE = "__Host-phi_oidc_activation"
LAST_SESSION_COOKIE = "__Host-phi_oidc_last_session"
PENDING_SIGN_IN = "pending sign-in"


def list_forged_ciphertexts(ciphertext: str, *, context: Sequence[str]) -> list[str]:
    """Return malformed texts, and the content of a valid ciphertext under keys for other
    purposes.
    """
    token = ciphertext.partition(":")[2]
    keys = (keyring.get_keys("subject")[0], *keyring.get_keys("encryption"))
    return [
        "x",
        f"00000000:{token}",
        # The names of retention keys.
        f"20260101-session:{token}",
        f"hold-{'0' * 32}:A",
        keyring.reencrypt_text(ciphertext, context=context, keys=keys),
    ]


def forge_state_cookie(environment: AttackEnvironment) -> None:
    """The cookie of the pending sign-in is forged when the provider redirects back."""
    with environment.override_declaration():
        browser = environment.create_browser()
        callback = browser.get_callback_url(environment.op)
        for cookies in _list_forged_state_cookies(browser, set()):
            victim = environment.create_browser(cookies=cookies)
            environment.portal.mark_refusals_seen()
            environment.assert_refused(victim, victim.get(callback), "state_unknown")
        environment.assert_accepted(browser, browser.get(callback))


def forge_activation_cookie(environment: AttackEnvironment) -> None:
    """The cookie of the activation page is forged."""
    accounts = environment.op.state.accounts
    url = reverse("oidc_activate")
    accounts["unlinked"] = replace(accounts["amina"], username="unlinked")
    with environment.override_declaration(provisioning="invitation"):
        browser = environment.create_browser()
        page = browser.sign_in(environment.op, "unlinked")
        is_open = page.location == url and browser.get(url).status == 200
        environment.assert_control(is_open, "the activation page does not open")
        ciphertext = browser.cookies[ACTIVATION_COOKIE]
        for forged in list_forged_ciphertexts(ciphertext, context=["newcomer", ACTIVATION_COOKIE]):
            victim = environment.create_browser(cookies={ACTIVATION_COOKIE: forged})
            page = victim.get(url)
            if page.status != 302:
                environment.report_fault(f"the status of the page is {page.status}")
            page = victim.post(url, code="x", csrfmiddlewaretoken=create_csrf_token(victim))
            if page.status != 403:
                environment.report_fault(f"the status of the form is {page.status}")


def forge_last_session_cookie(environment: AttackEnvironment) -> None:
    """The cookie that names the last session of the browser is forged."""
    with environment.override_declaration():
        browser = environment.create_browser()
        environment.assert_accepted(browser, browser.sign_in(environment.op))
        ciphertext = browser.cookies.get(LAST_SESSION_COOKIE, "")
        environment.assert_control(ciphertext, "the sign-in does not set the cookie")
        for forged in list_forged_ciphertexts(
            ciphertext, context=["last session", LAST_SESSION_COOKIE]
        ):
            victim = environment.create_browser(cookies={LAST_SESSION_COOKIE: forged})
            page = victim.start_sign_in()
            if page.status != 302:
                environment.report_fault(f"the status of the sign-in is {page.status}")


def forge_step_up(environment: AttackEnvironment) -> None:
    """The parameter that begins a step-up is forged, or the cookie of the pending step-up."""
    with environment.override_declaration():
        browser = environment.create_browser()
        user = environment.assert_accepted(browser, browser.sign_in(environment.op))
        url = create_step_up_link(browser)
        (demand,) = parse_qs(urlsplit(url).query)["demand"]
        for forged in list_forged_ciphertexts(demand, context=["step-up"]):
            environment.portal.mark_refusals_seen()
            _report_accepted_step_up(
                environment, browser.get(replace_query_parameters(url, demand=forged))
            )
        earlier_cookies = set(browser.cookies)
        page = browser.get(url)
        environment.assert_control(
            page.status == 302, f"the status of the step-up is {page.status}"
        )
        callback = environment.op.authorize(page.location, "amina")
        for cookies in _list_forged_state_cookies(browser, earlier_cookies):
            environment.portal.mark_refusals_seen()
            _report_accepted_step_up(
                environment, environment.create_browser(cookies=cookies).get(callback)
            )
        is_signed_in = environment.find_signed_in_user(browser) == user
        if not is_signed_in:
            environment.report_fault("the session was ended")
        page = browser.get(callback)
        environment.assert_control(
            page.status == 302, f"the status of the callback is {page.status}"
        )


def _list_forged_state_cookies(browser: Browser, earlier_cookies: set[str]) -> list[dict[str, str]]:
    """Return the cookies of the browser with the new state cookie forged, for each forged
    ciphertext.
    """
    new_cookies = []
    for cookie_name in browser.cookies:
        if cookie_name.startswith(STATE_COOKIE_PREFIX) and cookie_name not in earlier_cookies:
            new_cookies.append(cookie_name)
    (name,) = new_cookies
    forged = list_forged_ciphertexts(browser.cookies[name], context=[PENDING_SIGN_IN, name])
    state_cookies = []
    for ciphertext in forged:
        state_cookies.append({**browser.cookies, name: ciphertext})
    return state_cookies


def _report_accepted_step_up(environment: AttackEnvironment, page: PortalResponse) -> None:
    code = environment.portal.find_refusal_code()
    is_refused = page.status in environment.portal.refusal_statuses and code == "state_unknown"
    if is_refused:
        fault = ""
    else:
        fault = f"the status is {page.status}, the audit log contains {code or 'no refusal'}"

    environment.report_fault(fault)


CIPHERTEXT_ATTACKS: Mapping[tuple[str, str], AttackFunction] = {
    ("forged_ciphertext", ""): forge_state_cookie,
    ("forged_ciphertext", "activation"): forge_activation_cookie,
    ("forged_ciphertext", "last session"): forge_last_session_cookie,
    ("forged_ciphertext", "step-up"): forge_step_up,
}
