"""R9: each rule refuses, next to an accepted token that differs in one thing. Spec: Back-Channel Logout 2.4, 2.6."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.errors import Code, IDTokenError, KeyNotFound, LogoutTokenInvalid, RefreshMismatch
from django_phi_oidc.oidc.id_token import verify_id_token
from django_phi_oidc.oidc.jose import encode_b64url
from django_phi_oidc.oidc.jwks import JSONWebKeySet
from django_phi_oidc.oidc.logout_token import (
    BACKCHANNEL_LOGOUT_EVENT,
    LogoutToken,
    address_logout_token,
    verify_logout_token,
)
from django_phi_oidc.oidc.refresh import verify_refreshed_id_token
from tests.support.encrypted_tokens import ENCRYPTION_KEYS, encrypt_token
from tests.support.error_codes import raises
from tests.support.protocol_fixtures import ISSUER

NOW = int(datetime(2026, 11, 24, 12, 0, tzinfo=UTC).timestamp())
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": "portal",
    "iat": NOW,
    "exp": NOW + 120,
    "jti": "a-jti",
    "events": {BACKCHANNEL_LOGOUT_EVENT: {}},
    "sub": "yRq8c3ZbZ0xA",
    "sid": "08a5019c",
}
ID_CLAIMS = {"iss": ISSUER, "aud": "portal", "iat": NOW, "exp": NOW + 120, "sub": "yRq8c3ZbZ0xA", "nonce": "the-nonce"}
ABSENT = object()
LEEWAY, MINUTES = 30, 60
WITHOUT_EXP = {"allow_logout_token_without_exp": True}

Sign = Callable[..., str]
Declare = Callable[..., ProviderDeclaration]
Verify = Callable[..., LogoutToken]


def claims(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**CLAIMS, **changes}.items() if value is not ABSENT}


@pytest.fixture(scope="session")
def verify(keys: JSONWebKeySet, declare: Declare, now: datetime) -> Verify:
    """verify(token, trusted_audiences=…): under the default declaration with these changes."""

    def verify(token: str, **declared: Any) -> LogoutToken:
        return verify_logout_token(token, keys=keys, declaration=declare(**declared), now=now)

    return verify


Row = tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]
ONE: dict[str, Any] = {}
SUB_ALONE, SID_ALONE = {"sid": ABSENT}, {"sub": ABSENT}
NOT_TEXTS: list[tuple[str, Any]] = [("empty", ""), ("null", None), ("a number", 7), ("a list", ["x"]), ("true", True)]
NOT_DATES: list[tuple[str, Any]] = [
    ("text", str(NOW)),
    ("true", True),
    ("null", None),
    ("huge", 10**60),
    ("below 0", -1),
]
TABLES: dict[str, list[Row]] = {
    # fault, declaration, accepted changes, refused changes
    "iss_invalid": [
        ("absent", ONE, {}, {"iss": ABSENT}),
        ("another", ONE, {}, {"iss": "https://other.example"}),
        ("with a slash", ONE, {}, {"iss": f"{ISSUER}/"}),
        ("a list", ONE, {}, {"iss": [ISSUER]}),
    ],
    "aud_invalid": [
        ("absent", ONE, {}, {"aud": ABSENT}),
        ("another", ONE, {}, {"aud": "lab"}),
        ("one more", ONE, {"aud": ["portal"]}, {"aud": ["portal", "lab"]}),
        (
            "untrusted audience",
            {"trusted_audiences": ("lab",)},
            {"aud": ["portal", "lab"]},
            {"aud": ["portal", "x"]},
        ),
        ("null", ONE, {}, {"aud": None}),
    ],
    "iat_invalid": [
        ("absent", ONE, {}, {"iat": ABSENT}),
        ("in the future", ONE, {"iat": NOW + LEEWAY}, {"iat": NOW + LEEWAY + 1}),
        ("ten minutes old", ONE, {"iat": NOW - 10 * MINUTES - LEEWAY}, {"iat": NOW - 10 * MINUTES - LEEWAY - 1}),
        (
            "two minutes old without exp",
            WITHOUT_EXP,
            {"exp": ABSENT, "iat": NOW - 2 * MINUTES - LEEWAY},
            {"exp": ABSENT, "iat": NOW - 2 * MINUTES - LEEWAY - 1},
        ),
        *[(kind, ONE, {}, {"iat": value}) for kind, value in NOT_DATES],
        *[(f"{kind}, without exp", WITHOUT_EXP, {"exp": ABSENT}, {"exp": ABSENT, "iat": it}) for kind, it in NOT_DATES],
    ],
    "exp_invalid": [
        ("absent", ONE, {}, {"exp": ABSENT}),
        ("over", ONE, {"exp": NOW - LEEWAY + 1}, {"exp": NOW - LEEWAY}),
        ("over, where it may be absent", WITHOUT_EXP, {"exp": ABSENT}, {"exp": NOW - LEEWAY}),
        *[(kind, ONE, {}, {"exp": value}) for kind, value in NOT_DATES],
        *[
            (f"{kind}, where it may be absent", WITHOUT_EXP, {"exp": ABSENT}, {"exp": value})
            for kind, value in NOT_DATES
        ],
    ],
    "nbf_invalid": [("in the future", ONE, {"nbf": NOW + LEEWAY}, {"nbf": NOW + LEEWAY + 1})],
    "events_invalid": [
        ("absent", ONE, {}, {"events": ABSENT}),
        ("empty", ONE, {}, {"events": {}}),
        ("another event only", ONE, {"events": {BACKCHANNEL_LOGOUT_EVENT: {}, "x": {}}}, {"events": {"x": {}}}),
        ("its name as text", ONE, {}, {"events": BACKCHANNEL_LOGOUT_EVENT}),
        ("its name in a list", ONE, {}, {"events": [BACKCHANNEL_LOGOUT_EVENT]}),
        ("null", ONE, {}, {"events": None}),
        ("event null", ONE, {}, {"events": {BACKCHANNEL_LOGOUT_EVENT: None}}),
        ("event list", ONE, {}, {"events": {BACKCHANNEL_LOGOUT_EVENT: []}}),
        (
            "event text",
            ONE,
            {"events": {BACKCHANNEL_LOGOUT_EVENT: {"x": 1}}},
            {"events": {BACKCHANNEL_LOGOUT_EVENT: "{}"}},
        ),
    ],
    "jti_invalid": [
        ("absent", ONE, {}, {"jti": ABSENT}),
        *[(kind, ONE, {}, {"jti": value}) for kind, value in NOT_TEXTS],
    ],
    "sub_invalid": [
        ("neither sub nor sid", ONE, SID_ALONE, {"sub": ABSENT, "sid": ABSENT}),
        *[(kind, ONE, {}, {"sub": value}) for kind, value in NOT_TEXTS],
        *[(f"{kind}, without sid", ONE, SUB_ALONE, {"sid": ABSENT, "sub": value}) for kind, value in NOT_TEXTS],
    ],
    "sid_invalid": [
        *[(kind, ONE, {}, {"sid": value}) for kind, value in NOT_TEXTS],
        *[(f"{kind}, without sub", ONE, SID_ALONE, {"sub": ABSENT, "sid": value}) for kind, value in NOT_TEXTS],
    ],
    "nonce_invalid": [
        ("a nonce", ONE, {}, {"nonce": "the-nonce"}),
        ("null", ONE, {}, {"nonce": None}),
    ],
}
ROWS = [(rule, *row[1:]) for rule, rows in TABLES.items() for row in rows]
IDS = [f"{rule}: {row[0]}" for rule, rows in TABLES.items() for row in rows]


@pytest.mark.parametrize(("rule", "declared", "accepted", "refused"), ROWS, ids=IDS)
def test_verify_logout_token_with_one_wrong_claim_is_refused(
    verify: Verify,
    sign: Sign,
    rule: str,
    declared: dict[str, Any],
    accepted: dict[str, Any],
    refused: dict[str, Any],
) -> None:
    assert verify(sign(claims(**accepted)), **declared).jti == "a-jti"
    with raises(LogoutTokenInvalid) as raised:
        verify(sign(claims(**refused)), **declared)
    assert (raised.value.code, raised.value.rule) == ("logout_token_invalid", rule)


@pytest.mark.parametrize(
    ("typ", "accepted"),
    [
        ("logout+jwt", True),
        ("application/logout+jwt", True),
        ("Application/Logout+JWT", True),
        (ABSENT, True),
        ("JWT", True),
        ("jwt", True),
        ("", False),
        ("at+jwt", False),
        ("secevent+jwt", False),
        ("logout+jwt; x=y", False),
        ("application/application/logout+jwt", False),
    ],
)
def test_b2_verify_logout_token_typ_is_that_of_logout_tokens_jwt_or_absent(
    verify: Verify, sign: Sign, typ: Any, accepted: bool
) -> None:
    token = sign(CLAIMS, header={} if typ is ABSENT else {"typ": typ})
    if accepted:
        assert verify(token).sid == "08a5019c"
    else:
        with raises(LogoutTokenInvalid) as raised:
            verify(token)
        assert raised.value.rule == "typ_invalid"


@pytest.mark.parametrize("header", [{}, {"typ": "JWT"}, {"typ": "at+jwt"}], ids=["absent", "JWT", "at+jwt"])
def test_b2_verify_logout_token_typ_is_that_of_logout_tokens_if_required(
    verify: Verify, sign: Sign, header: dict[str, str]
) -> None:
    assert verify(sign(CLAIMS, header={"typ": "logout+jwt"}), require_logout_typ=True).jti == "a-jti"
    with raises(LogoutTokenInvalid) as raised:
        verify(sign(CLAIMS, header=header), require_logout_typ=True)
    assert raised.value.rule == "typ_invalid"


def unsigned(alg: str) -> Callable[[Sign], str]:
    return lambda sign: sign(CLAIMS, header={"alg": alg}).rpartition(".")[0] + "."


FORGED: dict[str, tuple[str, Callable[[Sign], str]]] = {
    "no token": ("token_malformed", lambda sign: ""),
    "no JWS": ("token_malformed", lambda sign: "a.b"),
    "five parts": ("token_malformed", lambda sign: f"{sign(CLAIMS)}.x.y"),
    "a list inside": ("token_malformed", lambda sign: sign(b"[]")),
    "a member twice": ("token_malformed", lambda sign: sign(b'{"jti":"a","jti":"a"}')),
    "a critical header": ("token_malformed", lambda sign: sign(CLAIMS, header={"crit": ["exp"]})),
    "no text": ("token_malformed", lambda sign: sign(CLAIMS) + "é"),
    "65 KiB": ("token_malformed", lambda sign: sign(claims(x="x" * 65536))),
    "alg none": ("alg_not_allowed", unsigned("none")),
    "alg HS256": ("alg_not_allowed", lambda sign: sign(CLAIMS, header={"alg": "HS256"})),
    "another payload": (
        "signature_invalid",
        lambda sign: ".".join(
            [sign(CLAIMS).split(".")[0], sign(claims(sub="another")).split(".")[1], sign(CLAIMS).split(".")[2]]
        ),
    ),
    "no signature": ("signature_invalid", unsigned("ES256")),
    "a foreign signature": (
        "signature_invalid",
        lambda sign: f"{sign(CLAIMS).rpartition('.')[0]}.{encode_b64url(bytes(64))}",
    ),
}


@pytest.mark.parametrize(("rule", "forge"), FORGED.values(), ids=FORGED)
def test_verify_logout_token_not_signed_by_the_provider_is_refused(
    verify: Verify, sign: Sign, rule: str, forge: Callable[[Sign], str]
) -> None:
    assert verify(sign(CLAIMS)).sub == "yRq8c3ZbZ0xA"
    with raises(LogoutTokenInvalid) as raised:
        verify(forge(sign))
    assert raised.value.rule == rule


def test_verify_logout_token_with_an_undeclared_alg_is_refused(verify: Verify, sign: Sign) -> None:
    token = sign(CLAIMS, alg="RS256")
    assert verify(token, id_token_signed_response_alg=("RS256",)).jti == "a-jti"
    with raises(LogoutTokenInvalid) as raised:
        verify(token, id_token_signed_response_alg=("ES256",))
    assert raised.value.rule == "alg_not_allowed"


def test_verify_logout_token_with_an_unknown_key_is_key_not_found(verify: Verify, sign: Sign) -> None:
    with raises(KeyNotFound):
        verify(sign(CLAIMS, header={"kid": "unknown"}))


def test_verify_logout_token_returns_the_logout_and_its_repr_shows_no_identifier(verify: Verify, sign: Sign) -> None:
    both = verify(sign(CLAIMS))
    assert (both.iss, both.sub, both.sid) == (ISSUER, "yRq8c3ZbZ0xA", "08a5019c")
    assert [secret for secret in (both.sub, both.sid, both.jti) if secret in repr(both)] == []
    assert verify(sign(claims(**SUB_ALONE))).sid == ""
    assert verify(sign(claims(**SID_ALONE))).sub == ""


@pytest.mark.parametrize(
    ("changes", "declared", "seconds"),
    [
        ({}, {}, 120 + LEEWAY),
        ({}, {"leeway": timedelta(seconds=5)}, 125),
        ({"exp": NOW + 86400}, {}, 10 * MINUTES + LEEWAY),
        ({"exp": ABSENT}, WITHOUT_EXP, 2 * MINUTES + LEEWAY),
        ({"exp": NOW + 300}, WITHOUT_EXP, 300 + LEEWAY),
    ],
    ids=["exp", "another leeway", "a late exp", "no exp", "exp where it may be absent"],
)
def test_verify_logout_token_is_refused_after_valid_until(
    keys: JSONWebKeySet,
    declare: Declare,
    sign: Sign,
    now: datetime,
    changes: dict[str, Any],
    declared: dict[str, Any],
    seconds: int,
) -> None:
    """A stored jti may be deleted then, but not earlier."""

    def verified_at(moment: datetime) -> LogoutToken:
        return verify_logout_token(sign(claims(**changes)), keys=keys, declaration=declare(**declared), now=moment)

    until = verified_at(now).valid_until
    assert until == now + timedelta(seconds=seconds)
    assert verified_at(until - timedelta(microseconds=1)).valid_until == until
    with raises(LogoutTokenInvalid):
        verified_at(until + timedelta(microseconds=1))


# ID Tokens and logout tokens are not interchangeable


def id_token_of(token: str, keys: JSONWebKeySet, declaration: ProviderDeclaration, now: datetime) -> Any:
    return verify_id_token(
        token,
        keys=keys,
        declaration=declaration,
        expected_nonce="the-nonce",
        is_issued_nonce=lambda nonce: False,
        access_token="at",
        now=now,
    )


@pytest.mark.parametrize("header", [{}, {"typ": "JWT"}], ids=["no typ", "JWT"])
@pytest.mark.parametrize("nonce", ["the-nonce", ABSENT], ids=["of a sign-in", "of a refresh"])
def test_id_token_is_not_accepted_as_a_logout_token(
    verify: Verify, sign: Sign, keys: JSONWebKeySet, declare: Declare, now: datetime, header: Any, nonce: Any
) -> None:
    its_claims = {
        name: value for name, value in {**ID_CLAIMS, "nonce": nonce, "jti": "x"}.items() if value is not ABSENT
    }
    token = sign(its_claims, header=header)
    if nonce is not ABSENT:
        assert id_token_of(token, keys, declare(), now)["sub"] == CLAIMS["sub"]
    with raises(LogoutTokenInvalid):
        verify(token)


def test_logout_token_is_not_accepted_as_an_id_token(
    verify: Verify, sign: Sign, keys: JSONWebKeySet, declare: Declare, now: datetime
) -> None:
    token = sign(CLAIMS)
    assert verify(token).sub
    with raises(Code.NONCE_INVALID):
        id_token_of(token, keys, declare(), now)
    # Nor with a nonce, which a logout token must not have.
    with raises(LogoutTokenInvalid):
        verify(sign(claims(nonce="the-nonce")))


def test_logout_token_is_not_accepted_as_a_refreshed_id_token(
    verify: Verify, sign: Sign, keys: JSONWebKeySet, declare: Declare, now: datetime
) -> None:
    def refreshed(token: str) -> Any:
        return verify_refreshed_id_token(
            token, original_claims=ID_CLAIMS, keys=keys, declaration=declare(), access_token="at", now=now
        )

    assert refreshed(sign(claims(events=ABSENT)))["sub"] == CLAIMS["sub"]
    assert refreshed(sign(claims(events=ABSENT), header={"typ": "JWT"}))["sub"] == CLAIMS["sub"]
    with raises(Code.TYP_INVALID):
        refreshed(sign(claims(events=ABSENT), header={"typ": "logout+jwt"}))
    assert refreshed(sign(claims(events={"a claim of": "the provider's own"})))["sub"] == CLAIMS["sub"]
    assert verify(sign(CLAIMS)).sub
    with raises(RefreshMismatch):
        refreshed(sign(CLAIMS))


# Selection of the declaration


@pytest.fixture
def declared(declare: Declare) -> list[ProviderDeclaration]:
    """Return two clients of one issuer, and one with the same client_id at another."""
    return [
        declare(name="portal"),
        declare(name="lab", client_id="lab"),
        declare(name="other", issuer="https://other.example"),
    ]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "portal"),
        ({"aud": "lab"}, "lab"),
        ({"aud": ["lab"]}, "lab"),
        ({"iss": "https://other.example"}, "other"),
    ],
)
def test_declaration_has_the_issuer_and_client_of_the_token(
    sign: Sign, declared: list[ProviderDeclaration], changes: dict[str, Any], name: str
) -> None:
    assert address_logout_token(sign(claims(**changes)), declared).declaration.name == name


@pytest.mark.parametrize(
    ("token", "rule"),
    [
        (lambda sign: "nonsense", "token_malformed"),
        (lambda sign: sign(claims(iss="https://unknown.example")), "iss_invalid"),
        (lambda sign: sign(claims(iss=ABSENT)), "iss_invalid"),
        (lambda sign: sign(claims(iss={})), "iss_invalid"),
        (lambda sign: sign(claims(aud="unknown")), "aud_invalid"),
        (lambda sign: sign(claims(aud=["portal", "lab"])), "aud_invalid"),
    ],
)
def test_unknown_issuer_or_audience_is_refused_before_a_key_is_selected(
    sign: Sign, declared: list[ProviderDeclaration], token: Callable[[Sign], str], rule: str
) -> None:
    with raises(LogoutTokenInvalid) as raised:
        address_logout_token(token(sign), declared)
    assert raised.value.rule == rule


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (lambda sign: encrypt_token(sign(claims())), "portal"),
        (lambda sign: encrypt_token(sign(claims(aud="lab"))), "lab"),
        (lambda sign: sign(claims(iss="https://other.example")), "other"),
        (lambda sign: sign(claims()), "encryption_missing"),
        (lambda sign: encrypt_token(sign(claims(iss="https://other.example"))), "iss_invalid"),
        (lambda sign: encrypt_token(sign(claims(aud="unknown"))), "aud_invalid"),
        (lambda sign: encrypt_token(sign(claims()), kid="x"), "decryption_failed"),
        (lambda sign: encrypt_token("nonsense"), "token_malformed"),
    ],
)
def test_logout_token_is_encrypted_exactly_if_id_tokens_are(
    sign: Sign, declared: list[ProviderDeclaration], token: Callable[[Sign], str], expected: str
) -> None:
    """Back-Channel Logout 2.4, 2.6 (1)."""
    encryption = {"client_keys": ENCRYPTION_KEYS, "id_token_encrypted_response_alg": ("ECDH-ES",)}
    portal, lab, other = declared
    declarations = [other, replace(portal, **encryption), replace(lab, **encryption)]
    try:
        addressed = address_logout_token(token(sign), declarations)
        result = addressed.declaration.name
        assert addressed.signed_token.count(".") == 2
    except LogoutTokenInvalid as error:
        result = error.rule
    assert result == expected


def test_encrypted_logout_token_is_refused_if_no_provider_encrypts(
    sign: Sign, declared: list[ProviderDeclaration]
) -> None:
    with raises(LogoutTokenInvalid) as raised:
        address_logout_token(encrypt_token(sign(claims())), declared)
    assert raised.value.rule == "encryption_undeclared"


def test_logout_token_invalid_message_contains_only_the_code(verify: Verify, sign: Sign) -> None:
    with raises(LogoutTokenInvalid) as raised:
        verify(sign(claims(exp=NOW - 60)))
    assert isinstance(raised.value.__cause__, IDTokenError)
    assert "exp" not in str(raised.value)
