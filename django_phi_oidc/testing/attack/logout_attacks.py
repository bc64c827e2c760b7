"""Attack cases for R9: a logout token with one invalid value ends no session, with a valid value it
does.
"""

from functools import partial
from typing import Any

from django.urls import reverse

from ... import conf
from ..mock_provider import MutableExchange
from ..mock_provider.backchannel import BACKCHANNEL_LOGOUT_EVENT, create_logout_token
from .browser import Browser, PortalResponse
from .cases import TamperingCase, create_case_factory, unchanged, with_slash
from .environment import AttackEnvironment, advance_clock
from .tampering import (
    OMITTED,
    TamperFunction,
    replace_token,
    sign_with_foreign_key,
    tamper_header,
    tamper_member,
    tamper_time_claim,
)

_logout_case = partial(create_case_factory("logout_token", stage="logout"), "logout_token_invalid")
LOGOUT_CASES = [
    _logout_case(sign_with_foreign_key, True, False, "foreign key"),
    _logout_case(tamper_header("alg"), "none", OMITTED, "alg none"),
    _logout_case(tamper_header("alg"), "HS256", OMITTED, "HS256 with the public key"),
    _logout_case(replace_token, lambda exchange: "not.a.token", None, "not a token"),
    _logout_case(tamper_header("typ"), "at+jwt", OMITTED, "typ of an access token"),
    _logout_case(tamper_member("iss"), with_slash("iss"), unchanged("iss"), "iss"),
    _logout_case(tamper_member("aud"), "another", unchanged("aud"), "aud"),
    _logout_case(tamper_time_claim("iat"), -635, 0, "iat", allowing_setting="leeway"),
    _logout_case(tamper_time_claim("exp"), -31, 60, "exp", allowing_setting="leeway"),
    _logout_case(
        tamper_member("exp"),
        OMITTED,
        unchanged("exp"),
        "no exp",
        allowing_setting="allow_logout_token_without_exp",
    ),
    _logout_case(tamper_member("jti"), OMITTED, unchanged("jti"), "no jti"),
    _logout_case(
        tamper_member("events"),
        {"http://schemas.openid.net/event/other": {}},
        {BACKCHANNEL_LOGOUT_EVENT: {}},
        "another event",
    ),
    _logout_case(tamper_member("nonce"), "n", OMITTED, "a nonce"),
]


def run_logout_case(
    case: TamperingCase, environment: AttackEnvironment, *, allowing_setting: str
) -> None:
    """Check that the valid token ends a session, and the invalid one does not."""
    browser = create_signed_in_browser(environment)
    page = post_logout_token(
        environment, create_tampered_logout_token(environment, case.tamper, case.valid_value)
    )
    _assert_logout_accepted(environment, page)
    with advance_clock(2 * conf.session_recheck()):
        environment.assert_control(
            not environment.find_signed_in_user(browser), "the session was not ended"
        )
    browser = create_signed_in_browser(environment)
    page = post_logout_token(
        environment, create_tampered_logout_token(environment, case.tamper, case.invalid_value)
    )
    if page.status != 400:
        faults = [f"the status is {page.status}"]
    else:
        faults = []

    code = environment.portal.find_refusal_code()
    if code not in (case.code, None):
        faults.append(f"the audit log contains {code or 'no refusal'}")
    with advance_clock(2 * conf.session_recheck()):
        if not environment.find_signed_in_user(browser):
            faults.append("the session was ended")
    if page.status != 200:
        # The setting allows the token, but no other fault.
        allowing_setting = ""
    environment.report_fault("; ".join(faults), allowing_setting=allowing_setting)


def replay_logout_token(environment: AttackEnvironment) -> None:
    """A logout token is sent a second time."""
    with environment.override_declaration():
        create_signed_in_browser(environment)
        logout_token = create_tampered_logout_token(environment, tamper_header("typ"), OMITTED)
        _assert_logout_accepted(environment, post_logout_token(environment, logout_token))
        page = post_logout_token(environment, logout_token)
        code = environment.portal.find_refusal_code()
        if page.status != 400:
            environment.report_fault(f"the status is {page.status}")
        is_recorded = code in ("logout_token_replayed", None)
        if not is_recorded:
            environment.report_fault(f"the audit log contains {code or 'no refusal'}")


def complete_sign_in_after_logout(environment: AttackEnvironment) -> None:
    """The provider ends the user's session after the authorization, and the callback is opened
    afterwards.
    """
    for is_same_session in (False, True):
        with environment.override_declaration():
            browser = environment.create_browser()
            callback = browser.get_callback_url(environment.op)
            grant = environment.op.last_grant

            if is_same_session:
                sid = grant.sid
            else:
                sid = f"{grant.sid}x"

            logout_token = create_logout_token(environment.op.state, grant.client, sid=sid)
            _assert_logout_accepted(environment, post_logout_token(environment, logout_token))
            page = browser.get(callback)
            if is_same_session:
                environment.assert_refused(browser, page, "logged_out")
            else:
                environment.assert_accepted(browser, page)


def send_logout_token_with_general_type(environment: AttackEnvironment) -> None:
    """The provider's logout tokens have the type JWT, as a plain JWT library writes it. Spec: BCL
    2.4, 4.1.
    """
    setting = "require_logout_typ"
    if getattr(environment.declaration, setting):
        allowing_setting = setting
    else:
        allowing_setting = ""

    for typ in ("logout+jwt", "JWT"):
        with environment.override_declaration():
            is_ended = _is_session_ended(environment, tamper_header("typ"), typ)
            if typ == "JWT":
                if is_ended:
                    fault = ""
                else:
                    fault = "the session was not ended"
                environment.report_fault(fault, allowing_setting=allowing_setting)
            else:
                environment.assert_control(is_ended, "the session was not ended")


def send_logout_token_of_another_subject(environment: AttackEnvironment) -> None:
    """A logout token names a session by its sid, with another sub, as Keycloak sends it to pairwise
    clients.
    """
    with environment.override_declaration():
        is_ended = _is_session_ended(
            environment, tamper_member("sid"), lambda claims: f"{claims['sid']}x"
        )
        environment.assert_control(not is_ended, "another sid ended the session")
    with environment.override_declaration():
        is_ended = _is_session_ended(
            environment, tamper_member("sub"), lambda claims: f"{claims['sub']}x"
        )
        if not is_ended:
            environment.report_fault("the session was not ended")


def _is_session_ended(environment: AttackEnvironment, tamper: TamperFunction, value: Any) -> bool:
    """Return whether the logout token of a new session, tampered with, ends that session."""
    browser = create_signed_in_browser(environment)
    post_logout_token(environment, create_tampered_logout_token(environment, tamper, value))
    with advance_clock(2 * conf.session_recheck()):
        return not environment.find_signed_in_user(browser)


def _assert_logout_accepted(environment: AttackEnvironment, page: PortalResponse) -> None:
    code = environment.portal.find_refusal_code()
    environment.assert_control(page.status == 200, f"the status is {page.status}, {code}")


def create_signed_in_browser(environment: AttackEnvironment) -> Browser:
    """Return a browser after a successful sign-in."""
    browser = environment.create_browser()
    environment.op.mutate = environment.create_honest_hook()
    environment.assert_accepted(browser, browser.sign_in(environment.op))
    environment.portal.mark_refusals_seen()
    return browser


def create_tampered_logout_token(
    environment: AttackEnvironment, tamper: TamperFunction, value: Any
) -> str:
    """Return a logout token of the provider for the last sign-in, tampered with."""

    def hook(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "logout_token":
            tamper(exchange, value)

    grant = environment.op.last_grant
    environment.op.mutate = hook
    return create_logout_token(environment.op.state, grant.client, sub=grant.sub, sid=grant.sid)


def post_logout_token(environment: AttackEnvironment, logout_token: str) -> PortalResponse:
    """Post the token to the portal and return the response."""
    return environment.create_browser().post(
        reverse("oidc_backchannel_logout"), logout_token=logout_token
    )
