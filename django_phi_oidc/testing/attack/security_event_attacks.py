"""Attack cases for security events: an event with one invalid value ends no session, with a valid
value it does.
"""

from functools import partial
from typing import Any
from urllib.parse import urlsplit

from django.test import Client
from django.urls import reverse

from ... import conf
from ..._internal import clock
from ..mock_provider import MutableExchange
from ..mock_provider.backchannel import create_logout_token
from ..mock_provider.event_streams import create_security_event
from .browser import Browser
from .cases import TamperingCase, create_case_factory, unchanged, with_slash
from .environment import AttackEnvironment, advance_clock
from .logout_attacks import create_signed_in_browser, post_logout_token
from .tampering import (
    OMITTED,
    TamperFunction,
    replace_token,
    sign_with_foreign_key,
    tamper_header,
    tamper_member,
    tamper_time_claim,
)

SESSION_REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
AUTHORIZATION = "Bearer of-the-attack-kit"
SIGNALS = {"delivery": "push", "push_authorization": AUTHORIZATION}
DAY = 24 * 60 * 60

_case = partial(
    create_case_factory("security_event", stage="security_event", options={"signals": SIGNALS}),
    "set_invalid",
)
SECURITY_EVENT_CASES = [
    _case(sign_with_foreign_key, True, False, "foreign key"),
    _case(tamper_header("alg"), "none", OMITTED, "alg none"),
    _case(tamper_header("alg"), "HS256", OMITTED, "HS256 with the public key"),
    _case(replace_token, lambda exchange: "not.a.token", None, "not a token"),
    _case(tamper_header("typ"), "logout+jwt", OMITTED, "typ of a logout token"),
    _case(tamper_header("typ"), "JWT", OMITTED, "typ JWT"),
    _case(tamper_member("iss"), with_slash("iss"), unchanged("iss"), "iss"),
    _case(tamper_member("aud"), "another", unchanged("aud"), "aud"),
    _case(tamper_time_claim("iat"), -31 * DAY, 0, "iat"),
    _case(tamper_time_claim("exp"), 60, OMITTED, "an exp"),
    _case(tamper_member("sub"), lambda claims: claims["sub_id"]["sub"], OMITTED, "a sub"),
    _case(tamper_member("jti"), OMITTED, unchanged("jti"), "no jti"),
    _case(
        tamper_member("events"),
        lambda claims: {
            **claims["events"],
            "https://schemas.openid.net/secevent/risc/event-type/account-disabled": {},
        },
        unchanged("events"),
        "two events",
    ),
    _case(
        tamper_member("sub_id"),
        lambda claims: {**claims["sub_id"], "iss": "https://other.example"},
        unchanged("sub_id"),
        "a person of another issuer",
    ),
    _case(tamper_member("sub_id"), OMITTED, unchanged("sub_id"), "no subject"),
]


def run_security_event_case(case: TamperingCase, environment: AttackEnvironment) -> None:
    """Check that the valid event ends a session, and the invalid one does not."""
    browser = create_signed_in_browser(environment)
    status = push_event(
        environment, create_tampered_event(environment, case.tamper, case.valid_value)
    )
    _assert_ended(environment, browser, status)
    browser = create_signed_in_browser(environment)
    status = push_event(
        environment, create_tampered_event(environment, case.tamper, case.invalid_value)
    )
    _assert_refused(environment, browser, status)


def send_other_tokens_as_events(environment: AttackEnvironment) -> None:
    """A logout token and an ID Token are pushed as events, and an event is sent as a logout
    token.
    """
    with environment.override_declaration(signals=SIGNALS):
        browser = create_signed_in_browser(environment)
        environment.op.mutate = environment.create_honest_hook()
        grant = environment.op.last_grant
        logout_token = create_logout_token(
            environment.op.state, grant.client, sub=grant.sub, sid=grant.sid
        )
        for token in (logout_token, environment.op.id_tokens[-1]):
            _assert_refused(environment, browser, push_event(environment, token))
        page = post_logout_token(
            environment, create_tampered_event(environment, tamper_header("typ"), OMITTED)
        )
        if page.status != 400:
            environment.report_fault(f"an event as a logout token: status {page.status}")
        event = create_tampered_event(environment, tamper_header("typ"), OMITTED)
        _assert_ended(environment, browser, push_event(environment, event))


def push_without_authorization(environment: AttackEnvironment) -> None:
    """A valid event is pushed without the declared header, and with another one."""
    with environment.override_declaration(signals=SIGNALS):
        browser = create_signed_in_browser(environment)
        event = create_tampered_event(environment, tamper_header("typ"), OMITTED)
        for authorization in ("", "Bearer another"):
            status = push_event(environment, event, authorization=authorization)
            _assert_refused(environment, browser, status)
        _assert_ended(environment, browser, push_event(environment, event))


def replay_event(environment: AttackEnvironment) -> None:
    """An event is pushed a second time, after the person has signed in again."""
    with environment.override_declaration(signals=SIGNALS):
        browser = create_signed_in_browser(environment)
        event = create_tampered_event(environment, tamper_header("typ"), OMITTED)
        _assert_ended(environment, browser, push_event(environment, event))
        # At once: a session that begins later would not end anyway, see send_stale_event.
        browser = create_signed_in_browser(environment)
        status = push_event(environment, event)
        if status == 202:
            fault = ""
        else:
            fault = f"the repetition got {status}"

        environment.report_fault(fault or _find_end(environment, browser))


def send_stale_event(environment: AttackEnvironment) -> None:
    """The end of earlier sessions is pushed for the first time after the person has signed in
    again.
    """
    with environment.override_declaration(signals=SIGNALS):
        browser = create_signed_in_browser(environment)
        for seconds, is_valid in ((-DAY, False), (0, True)):
            happened = {"event_timestamp": clock.now().timestamp() + seconds}
            event = create_tampered_event(
                environment, tamper_member("events"), {SESSION_REVOKED: happened}
            )
            status = push_event(environment, event)
            if is_valid:
                _assert_ended(environment, browser, status)
            else:
                environment.report_fault(_find_end(environment, browser))


def create_tampered_event(
    environment: AttackEnvironment, tamper: TamperFunction, value: Any
) -> str:
    """Return an event of the provider about the person of the last sign-in, tampered with."""

    def hook(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "security_event":
            tamper(exchange, value)

    grant = environment.op.last_grant
    environment.op.mutate = hook
    subject = {"format": "iss_sub", "iss": environment.op.issuer, "sub": grant.sub}
    client_id = environment.declaration.client_id
    return create_security_event(
        environment.op.state, audience=client_id, event_type=SESSION_REVOKED, sub_id=subject
    )


def push_event(
    environment: AttackEnvironment, token: str, *, authorization: str = AUTHORIZATION
) -> int:
    """Push the token to the portal and return the status."""
    client = Client(enforce_csrf_checks=True, raise_request_exception=False)
    headers = {"host": urlsplit(environment.create_browser().base_url).netloc}
    if authorization:
        headers["authorization"] = authorization
    content_type = "application/secevent+jwt"
    return client.generic(
        "POST",
        reverse("oidc_ssf_events"),
        token,
        content_type=content_type,
        secure=True,
        headers=headers,
    ).status_code


def _find_end(environment: AttackEnvironment, browser: Browser) -> str:
    with advance_clock(2 * conf.session_recheck()):
        if environment.find_signed_in_user(browser):
            return ""
        return "the session was ended"


def _assert_ended(environment: AttackEnvironment, browser: Browser, status: int) -> None:
    code = environment.portal.find_refusal_code()
    environment.assert_control(status == 202, f"the status is {status}, {code}")
    environment.assert_control(_find_end(environment, browser), "the session was not ended")


def _assert_refused(environment: AttackEnvironment, browser: Browser, status: int) -> None:
    if status != 400:
        faults = [f"the status is {status}"]
    else:
        faults = []

    code = environment.portal.find_refusal_code()
    if code not in ("set_invalid", None):
        faults.append(f"the audit log contains {code or 'no refusal'}")
    environment.report_fault("; ".join([*faults, *filter(None, [_find_end(environment, browser)])]))


SECURITY_EVENT_ATTACKS = {
    ("set_invalid", "another kind of token"): send_other_tokens_as_events,
    ("set_invalid", "no authorization"): push_without_authorization,
    ("replayed_event", ""): replay_event,
    ("stale_event", ""): send_stale_event,
}
