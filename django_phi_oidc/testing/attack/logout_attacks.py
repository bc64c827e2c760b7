"""R9 as cases: a logout token with one thing wrong ends nothing, and the same without it ends the session."""

from typing import Any

from django.urls import reverse

from ... import conf
from ..mock_provider import MutableExchange
from ..mock_provider.backchannel import BACKCHANNEL_LOGOUT_EVENT, create_logout_token
from .browser import Browser, PortalResponse
from .cases import TamperingCase, unchanged
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


def _create_logout_case(
    id_: str, tamper: TamperFunction, invalid_value: Any, valid_value: Any, **fields: Any
) -> TamperingCase:
    return TamperingCase(
        "logout_token_invalid", "logout_token", tamper, invalid_value, valid_value, stage="logout", id=id_, **fields
    )


LOGOUT_CASES = [
    _create_logout_case("foreign key", sign_with_foreign_key, True, False),
    _create_logout_case("alg none", tamper_header("alg"), "none", OMITTED),
    _create_logout_case("HS256 with the public key", tamper_header("alg"), "HS256", OMITTED),
    _create_logout_case("no token", replace_token, lambda it: "not.a.token", None),
    _create_logout_case("an ID Token's typ", tamper_header("typ"), "JWT", OMITTED),
    _create_logout_case("iss", tamper_member("iss"), lambda claims: claims["iss"] + "/", unchanged("iss")),
    _create_logout_case("aud", tamper_member("aud"), "another", unchanged("aud")),
    _create_logout_case("iat", tamper_time_claim("iat"), -635, 0, allowing_setting="leeway"),
    _create_logout_case("exp", tamper_time_claim("exp"), -31, 60, allowing_setting="leeway"),
    _create_logout_case(
        "no exp", tamper_member("exp"), OMITTED, unchanged("exp"), allowing_setting="allow_logout_token_without_exp"
    ),
    _create_logout_case("no jti", tamper_member("jti"), OMITTED, unchanged("jti")),
    _create_logout_case(
        "another event",
        tamper_member("events"),
        {"http://schemas.openid.net/event/other": {}},
        {BACKCHANNEL_LOGOUT_EVENT: {}},
    ),
    _create_logout_case("a nonce", tamper_member("nonce"), "n", OMITTED),
]


def run_logout_case(case: TamperingCase, environment: AttackEnvironment, *, allowing_setting: str) -> None:
    """See the right token end a session, and the wrong one leave it alive."""
    browser = create_signed_in_browser(environment)
    page = post_logout_token(environment, create_tampered_logout_token(environment, case.tamper, case.valid_value))
    environment.assert_control(
        page.status == 200, f"the answer is {page.status}, {environment.portal.find_refusal_code()}"
    )
    with advance_clock(2 * conf.session_recheck()):
        environment.assert_control(not environment.find_signed_in_user(browser), "the session lives on")
    browser = create_signed_in_browser(environment)
    page = post_logout_token(environment, create_tampered_logout_token(environment, case.tamper, case.invalid_value))
    seen = [] if page.status == 400 else [f"the answer is {page.status}"]
    if environment.portal.find_refusal_code() not in (case.code, None):
        seen.append(f"the trail says {environment.portal.find_refusal_code() or 'nothing'}")
    with advance_clock(2 * conf.session_recheck()):
        if not environment.find_signed_in_user(browser):
            seen.append("the session was ended")
    environment.report_fault("; ".join(seen), allowing_setting=allowing_setting if page.status == 200 else "")


def replay_logout_token(environment: AttackEnvironment) -> None:
    """A logout token is sent a second time."""
    with environment.override_declaration():
        create_signed_in_browser(environment)
        sent = create_tampered_logout_token(environment, tamper_header("typ"), OMITTED)
        page = post_logout_token(environment, sent)
        environment.assert_control(
            page.status == 200, f"the answer is {page.status}, {environment.portal.find_refusal_code()}"
        )
        page = post_logout_token(environment, sent)
        told = environment.portal.find_refusal_code()
        environment.report_fault("" if page.status == 400 else f"the answer is {page.status}")
        environment.report_fault(
            "" if told in ("logout_token_replayed", None) else f"the trail says {told or 'nothing'}"
        )


def create_signed_in_browser(environment: AttackEnvironment) -> Browser:
    """Return the browser of somebody who has just signed in."""
    browser = environment.create_browser()
    environment.op.mutate = environment.create_honest_hook()
    environment.assert_accepted(browser, browser.sign_in(environment.op))
    environment.portal.mark_refusals_seen()
    return browser


def create_tampered_logout_token(environment: AttackEnvironment, tamper: TamperFunction, value: Any) -> str:
    """Return the provider's logout token about the last sign-in, bent."""

    def hook(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "logout_token":
            tamper(exchange, value)

    grant = environment.op.last_grant
    environment.op.mutate = hook
    return create_logout_token(environment.op.state, grant.client, sub=grant.sub, sid=grant.sid)


def post_logout_token(environment: AttackEnvironment, logout_token: str) -> PortalResponse:
    """Return the portal's answer to the provider."""
    return environment.create_browser().post(reverse("oidc_backchannel_logout"), logout_token=logout_token)
