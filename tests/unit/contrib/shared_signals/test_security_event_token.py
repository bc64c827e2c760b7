"""Each rule for security events refuses, next to an accepted token that differs in one thing. Spec: SSF 1.0 4.1."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.contrib.shared_signals.declaration import SignalsDeclaration
from django_phi_oidc.contrib.shared_signals.errors import SecurityEventTokenInvalid
from django_phi_oidc.contrib.shared_signals.security_event_token import (
    ACCOUNT_DISABLED,
    SESSION_REVOKED,
    SecurityEventToken,
    address_security_event_token,
    verify_security_event_token,
)
from django_phi_oidc.errors import IDTokenError, KeyNotFound, LogoutTokenInvalid
from django_phi_oidc.oidc.id_token import verify_id_token
from django_phi_oidc.oidc.jose import encode_b64url
from django_phi_oidc.oidc.jwks import JSONWebKeySet
from django_phi_oidc.oidc.logout_token import BACKCHANNEL_LOGOUT_EVENT, verify_logout_token
from tests.support.error_codes import raises
from tests.support.protocol_fixtures import ISSUER

NOW = int(datetime(2026, 11, 24, 12, 0, tzinfo=UTC).timestamp())
TYP = {"typ": "secevent+jwt"}
SUB_ID = {"format": "iss_sub", "iss": ISSUER, "sub": "yRq8c3ZbZ0xA"}
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": "portal",
    "iat": NOW,
    "jti": "a-jti",
    "sub_id": SUB_ID,
    "events": {SESSION_REVOKED: {"event_timestamp": NOW - 60}},
}
ABSENT = object()
LEEWAY, DAYS = 30, 86400
DRAFT = {"allow_draft_events": True}

Sign = Callable[..., str]
Declare = Callable[..., ProviderDeclaration]
Verify = Callable[..., SecurityEventToken]


def claims(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**CLAIMS, **changes}.items() if value is not ABSENT}


@pytest.fixture(scope="session")
def verify(keys: JSONWebKeySet, declare: Declare, now: datetime) -> Verify:
    """verify(token, audience=…): under the default declaration of signals with these changes."""

    def verify(token: str, **declared: Any) -> SecurityEventToken:
        signals = SignalsDeclaration(delivery="push", **declared)
        declaration = declare(app_options=(("signals", signals),), id_token_signed_response_alg=("ES256",))
        return verify_security_event_token(token, keys=keys, declaration=declaration, signals=signals, now=now)

    return verify


def event(**members: Any) -> dict[str, Any]:
    return {"events": {SESSION_REVOKED: members}}


Row = tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]
ONE: dict[str, Any] = {}
OTHER = "https://transmitter.example"
NOT_TEXTS: list[tuple[str, Any]] = [("empty", ""), ("null", None), ("a number", 7), ("a list", ["x"]), ("true", True)]
NOT_DATES: list[tuple[str, Any]] = [("text", str(NOW)), ("true", True), ("null", None), ("huge", 10**60), ("below", -1)]
TABLES: dict[str, list[Row]] = {
    # rule, declaration, accepted changes, refused changes
    "iss_invalid": [
        ("absent", ONE, {}, {"iss": ABSENT}),
        ("another", ONE, {}, {"iss": OTHER}),
        ("with a slash", ONE, {}, {"iss": f"{ISSUER}/"}),
        ("that of the provider instead of the transmitter", {"transmitter": OTHER}, {"iss": OTHER}, {"iss": ISSUER}),
    ],
    "aud_invalid": [
        ("absent", ONE, {}, {"aud": ABSENT}),
        ("another", ONE, {}, {"aud": "lab"}),
        ("one more", ONE, {"aud": ["portal"]}, {"aud": ["portal", "lab"]}),
        ("none", ONE, {}, {"aud": []}),
        ("a declared one", {"audience": ("https://portal/ssf",)}, {"aud": "https://portal/ssf"}, {"aud": "portal"}),
    ],
    "iat_invalid": [
        ("absent", ONE, {}, {"iat": ABSENT}),
        ("in the future", ONE, {"iat": NOW + LEEWAY}, {"iat": NOW + LEEWAY + 1}),
        ("thirty days old", ONE, {"iat": NOW - 30 * DAYS - LEEWAY}, {"iat": NOW - 30 * DAYS - LEEWAY - 1}),
        *[(kind, ONE, {}, {"iat": value}) for kind, value in NOT_DATES],
    ],
    "exp_invalid": [
        ("present", ONE, {}, {"exp": NOW + 60}),
        ("null", ONE, {}, {"exp": None}),
        ("over, in the form of drafts", DRAFT, {"exp": NOW - LEEWAY + 1}, {"exp": NOW - LEEWAY}),
    ],
    "sub_invalid": [("present", ONE, {}, {"sub": "yRq8c3ZbZ0xA"}), ("in a draft", DRAFT, {}, {"sub": "yRq8c3ZbZ0xA"})],
    "jti_invalid": [
        ("absent", ONE, {}, {"jti": ABSENT}),
        *[(kind, ONE, {}, {"jti": value}) for kind, value in NOT_TEXTS],
    ],
    "events_invalid": [
        ("absent", ONE, {}, {"events": ABSENT}),
        ("empty", ONE, {}, {"events": {}}),
        ("two", ONE, {}, {"events": {SESSION_REVOKED: {}, ACCOUNT_DISABLED: {}}}),
        ("a text", ONE, {}, {"events": SESSION_REVOKED}),
        ("event null", ONE, {"events": {SESSION_REVOKED: {}}}, {"events": {SESSION_REVOKED: None}}),
        ("no name", ONE, {"events": {"urn:x": {}}}, {"events": {"": {}}}),
        ("its time in milliseconds", ONE, event(event_timestamp=NOW), event(event_timestamp=NOW * 1000)),
        *[(f"its time is {kind}", ONE, event(event_timestamp=NOW), event(event_timestamp=v)) for kind, v in NOT_DATES],
        ("toe is a text", ONE, {**event(), "toe": NOW}, {**event(), "toe": str(NOW)}),
    ],
    "sub_id_invalid": [
        ("absent", ONE, {}, {"sub_id": ABSENT}),
        ("a text", ONE, {}, {"sub_id": "yRq8c3ZbZ0xA"}),
        ("another issuer's person", ONE, {}, {"sub_id": {**SUB_ID, "iss": OTHER}}),
        ("no format", ONE, {}, {"sub_id": {"iss": ISSUER, "sub": "x"}}),
        ("no sub", ONE, {}, {"sub_id": {"format": "iss_sub", "iss": ISSUER}}),
        ("an empty id", ONE, {"sub_id": {"format": "opaque", "id": "x"}}, {"sub_id": {"format": "opaque", "id": ""}}),
        (
            "another issuer's user of a complex subject",
            ONE,
            {"sub_id": {"format": "complex", "user": SUB_ID}},
            {"sub_id": {"format": "complex", "user": {**SUB_ID, "iss": OTHER}}},
        ),
        (
            "a session without a format",
            ONE,
            {"sub_id": {"format": "complex", "session": {"format": "opaque", "id": "1"}}},
            {"sub_id": {"format": "complex", "session": {"id": "1"}}},
        ),
        (
            "inside of the event, unless drafts are allowed",
            ONE,
            {},
            {"sub_id": ABSENT, **event(subject={"subject_type": "iss-sub", "iss": ISSUER, "sub": "x"})},
        ),
    ],
}
ROWS = [(rule, *row[1:]) for rule, rows in TABLES.items() for row in rows]
IDS = [f"{rule}: {row[0]}" for rule, rows in TABLES.items() for row in rows]


@pytest.mark.parametrize(("rule", "declared", "accepted", "refused"), ROWS, ids=IDS)
def test_event_with_one_wrong_claim_is_refused(
    verify: Verify,
    sign: Sign,
    rule: str,
    declared: dict[str, Any],
    accepted: dict[str, Any],
    refused: dict[str, Any],
) -> None:
    assert verify(sign(claims(**accepted), header=TYP), **declared).jti == "a-jti"
    with raises(SecurityEventTokenInvalid) as raised:
        verify(sign(claims(**refused), header=TYP), **declared)
    assert (raised.value.code, raised.value.rule) == ("set_invalid", rule)


@pytest.mark.parametrize(
    ("typ", "accepted"),
    [
        ("secevent+jwt", True),
        ("application/secevent+jwt", True),
        ("Application/SecEvent+JWT", True),
        (ABSENT, False),
        ("JWT", False),
        ("logout+jwt", False),
        ("at+jwt", False),
        ("secevent+jwt; x=y", False),
    ],
)
def test_typ_is_that_of_security_events(verify: Verify, sign: Sign, typ: Any, accepted: bool) -> None:
    token = sign(CLAIMS, header={} if typ is ABSENT else {"typ": typ})
    if accepted:
        assert verify(token).jti == "a-jti"
    else:
        with raises(SecurityEventTokenInvalid) as raised:
            verify(token)
        assert raised.value.rule == "typ_invalid"


def unsigned(alg: str) -> Callable[[Sign], str]:
    return lambda sign: sign(CLAIMS, header={**TYP, "alg": alg}).rpartition(".")[0] + "."


FORGED: dict[str, tuple[str, Callable[[Sign], str]]] = {
    "no token": ("token_malformed", lambda sign: ""),
    "a member twice": ("token_malformed", lambda sign: sign(b'{"jti":"a","jti":"a"}', header=TYP)),
    "a critical header": ("token_malformed", lambda sign: sign(CLAIMS, header={**TYP, "crit": ["exp"]})),
    "65 KiB": ("token_malformed", lambda sign: sign(claims(x="x" * 65536), header=TYP)),
    "alg none": ("alg_not_allowed", unsigned("none")),
    "alg HS256": ("alg_not_allowed", lambda sign: sign(CLAIMS, header={**TYP, "alg": "HS256"})),
    "an undeclared alg": ("alg_not_allowed", lambda sign: sign(CLAIMS, alg="RS256", header=TYP)),
    "no signature": ("signature_invalid", unsigned("ES256")),
    "a foreign signature": (
        "signature_invalid",
        lambda sign: f"{sign(CLAIMS, header=TYP).rpartition('.')[0]}.{encode_b64url(bytes(64))}",
    ),
}


@pytest.mark.parametrize(("rule", "forge"), FORGED.values(), ids=FORGED)
def test_event_not_signed_by_the_transmitter_is_refused(
    verify: Verify, sign: Sign, rule: str, forge: Callable[[Sign], str]
) -> None:
    assert verify(sign(CLAIMS, header=TYP)).event_type == SESSION_REVOKED
    with raises(SecurityEventTokenInvalid) as raised:
        verify(forge(sign))
    assert raised.value.rule == rule


def test_unknown_key_is_key_not_found(verify: Verify, sign: Sign) -> None:
    with raises(KeyNotFound):
        verify(sign(CLAIMS, header={**TYP, "kid": "unknown"}))


# Confusion with other tokens of the same issuer, client and key: each is refused where the others are accepted

LOGOUT = {key: CLAIMS[key] for key in ("iss", "aud", "iat", "jti")} | {
    "exp": NOW + 120,
    "sub": "yRq8c3ZbZ0xA",
    "events": {BACKCHANNEL_LOGOUT_EVENT: {}},
}
ID_CLAIMS = {"iss": ISSUER, "aud": "portal", "iat": NOW, "exp": NOW + 120, "sub": "yRq8c3ZbZ0xA", "nonce": "n"}


def test_logout_token_is_no_event_and_an_event_is_no_logout_token(
    verify: Verify, sign: Sign, keys: JSONWebKeySet, declare: Declare, now: datetime
) -> None:
    logout, event = sign(LOGOUT, header={"typ": "logout+jwt"}), sign(CLAIMS, header=TYP)
    context: dict[str, Any] = {"keys": keys, "declaration": declare(), "now": now}
    assert verify_logout_token(logout, **context).jti == verify(event).jti
    with raises(SecurityEventTokenInvalid):
        verify(logout)
    with raises(LogoutTokenInvalid):
        verify_logout_token(event, **context)
    # Not even under the type of the other.
    with raises(SecurityEventTokenInvalid) as raised:
        verify(sign(LOGOUT, header=TYP))
    assert raised.value.rule == "sub_invalid"


def test_id_token_is_no_event_and_an_event_is_no_id_token(
    verify: Verify, sign: Sign, keys: JSONWebKeySet, declare: Declare, now: datetime
) -> None:
    def verify_as_id_token(token: str) -> Any:
        return verify_id_token(
            token,
            keys=keys,
            declaration=declare(),
            expected_nonce="n",
            is_issued_nonce=lambda nonce: False,
            access_token="",
            now=now,
        )

    assert verify_as_id_token(sign(ID_CLAIMS))["sub"] == "yRq8c3ZbZ0xA"
    for header in ({}, TYP):
        with raises(SecurityEventTokenInvalid):
            verify(sign(ID_CLAIMS, header=header))
    with raises(IDTokenError):
        verify_as_id_token(sign(CLAIMS, header=TYP))


# What is returned


@pytest.mark.parametrize(
    ("changes", "occurred_at"),
    [
        (event(event_timestamp=NOW - 3600), NOW - 3600),
        ({**event(event_timestamp=NOW - 3600), "toe": NOW - 7200}, NOW - 3600),
        ({**event(), "toe": NOW - 7200}, NOW - 7200),
        ({**event(), "iat": NOW - 5}, NOW - 5),
        (event(event_timestamp=NOW + 3600), NOW),
    ],
    ids=["event_timestamp", "event_timestamp before toe", "toe", "iat", "a future time is now"],
)
def test_time_of_the_event(verify: Verify, sign: Sign, changes: dict[str, Any], occurred_at: int) -> None:
    assert verify(sign(claims(**changes), header=TYP)).occurred_at.timestamp() == occurred_at


@pytest.mark.parametrize(
    ("sub_id", "expected"),
    [
        (SUB_ID, ("yRq8c3ZbZ0xA", "", "")),
        ({"format": "opaque", "id": "x"}, ("", "", "x")),
        ({"format": "complex", "user": SUB_ID, "session": {"format": "opaque", "id": "1"}}, ("yRq8c3ZbZ0xA", "1", "")),
        ({"format": "complex", "user": {"format": "opaque", "id": "x"}}, ("x", "", "")),
        ({"format": "complex", "session": {"format": "opaque", "id": "1"}}, ("", "1", "")),
        ({"format": "complex", "user": SUB_ID, "device": {"format": "opaque", "id": "d"}}, ("yRq8c3ZbZ0xA", "", "")),
        ({"format": "complex", "tenant": {"format": "opaque", "id": "t"}}, ("", "", "")),
        ({"format": "email", "email": "yRq8c3ZbZ0xA"}, ("", "", "")),
        ({"format": "complex", "user": {"format": "email", "email": "a@b.example"}}, ("", "", "")),
        ({"format": "phone_number", "phone_number": "+12065550100"}, ("", "", "")),
        ({"format": "account", "uri": "acct:a@b.example"}, ("", "", "")),
    ],
)
def test_subject_is_a_person_or_session_and_an_address_recognizes_no_one(
    verify: Verify, sign: Sign, sub_id: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    subject = verify(sign(claims(sub_id=sub_id), header=TYP)).subject
    assert (subject.sub, subject.sid, subject.opaque_id) == expected
    assert subject.is_recognizable is any(expected)


def test_event_of_login_gov_is_accepted_only_if_drafts_are_allowed(verify: Verify, sign: Sign) -> None:
    subject = {"subject_type": "iss-sub", "iss": ISSUER, "sub": "yRq8c3ZbZ0xA"}
    draft = claims(sub_id=ABSENT, exp=NOW + 12 * 3600, events={ACCOUNT_DISABLED: {"subject": subject}})
    verified = verify(sign(draft, header=TYP), **DRAFT)
    assert (verified.subject.sub, verified.event_type) == ("yRq8c3ZbZ0xA", ACCOUNT_DISABLED)
    with raises(SecurityEventTokenInvalid):
        verify(sign(draft, header=TYP))


def test_repr_shows_no_identifier(verify: Verify, sign: Sign) -> None:
    shown = repr(verify(sign(claims(sub_id={"format": "complex", "user": SUB_ID}), header=TYP)))
    assert not any(value in shown for value in ("yRq8c3ZbZ0xA", "a-jti"))


def test_jti_is_kept_until_the_event_is_too_old(verify: Verify, sign: Sign, now: datetime) -> None:
    assert verify(sign(CLAIMS, header=TYP)).valid_until == now + timedelta(days=30, seconds=LEEWAY)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "first"),
        ({"aud": "lab-client"}, "second"),
        ({"iss": OTHER, "aud": "third-client"}, "third"),
        ({"aud": "another"}, "aud_invalid"),
        ({"iss": "https://unknown.example"}, "iss_invalid"),
        ({"iss": OTHER}, "aud_invalid"),
    ],
)
def test_unverified_issuer_and_audience_select_the_provider(
    declare: Declare, sign: Sign, changes: dict[str, Any], expected: str
) -> None:
    push = SignalsDeclaration(delivery="push")
    other = SignalsDeclaration(delivery="push", transmitter=OTHER)
    providers = [
        declare(name="without"),
        declare(name="first", app_options=(("signals", push),)),
        declare(name="second", client_id="lab-client", app_options=(("signals", push),)),
        declare(name="third", client_id="third-client", app_options=(("signals", other),)),
    ]
    token = sign(claims(**changes), header=TYP)
    if expected.endswith("_invalid"):
        with raises(SecurityEventTokenInvalid) as raised:
            address_security_event_token(token, providers)
        assert raised.value.rule == expected
    else:
        assert address_security_event_token(token, providers).name == expected
