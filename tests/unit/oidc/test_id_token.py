"""R6: each rule refuses, next to an accepted token that differs in one thing. Spec: Core 2, 3.1.3.7, 3.1.3.8."""

import hashlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.config.signature_algorithms import SIGNATURE_ALGORITHMS
from django_phi_oidc.errors import Code, IDTokenError, KeyNotFound, SignInRefused
from django_phi_oidc.oidc.id_token import (
    find_auth_time,
    find_vector_of_trust,
    parse_numeric_date,
    validate_vtm,
    verify_id_token,
)
from django_phi_oidc.oidc.jose import encode_b64url, parse_compact_jws
from django_phi_oidc.oidc.jwks import JSONWebKeySet
from tests.support.error_codes import raises

OP = "https://op.example"
NOW = int(datetime(2026, 11, 24, 12, 0, tzinfo=UTC).timestamp())
CLAIMS = {
    "iss": OP,
    "aud": "portal",
    "exp": NOW + 300,
    "iat": NOW,
    "nonce": "the-nonce",
    "sub": "yRq8c3ZbZ0xA",
}
ISSUED = frozenset({"the-nonce", "an-earlier-nonce"})
ABSENT = object()
# Core A.3: its at_hash for RS256.
ACCESS_TOKEN = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y"
AT_HASH = "77QmUPtjPfzWtF2AnpK9RQ"

Sign = Callable[..., str]
Declare = Callable[..., ProviderDeclaration]
Verify = Callable[..., Any]


def claims(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**CLAIMS, **changes}.items() if value is not ABSENT}


@pytest.fixture(scope="session")
def verify(keys: JSONWebKeySet, declare: Declare, now: datetime) -> Verify:
    """verify(token, max_age=…): under the default declaration with these changes."""

    def verify(token: str, **declared: Any) -> Any:
        return verify_id_token(
            token,
            keys=keys,
            declaration=declare(**declared),
            expected_nonce="the-nonce",
            is_issued_nonce=ISSUED.__contains__,
            access_token=ACCESS_TOKEN,
            now=now,
        )

    return verify


Row = tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]
ONE: dict[str, Any] = {}
TWO = {"trusted_audiences": ("api",)}
EDGE = 30  # the leeway, seconds
AGED = {"max_age": 60}
UNTOLD = {"max_age": 60, "allow_auth_time_zero": True}
HEART = {"profile": "heart"}
STRONG = {"acr_values": ("urn:strong", "urn:stronger")}
ANSWERED = {"acr_values": ("urn:preferred",), "acr_accepted": ("urn:answer", "urn:other")}
MARK = "https://op.example/trust-mark"
VECTORS = {"vtr": ("P9.Cp.Cd", "P9.Cm"), "vtm": MARK}
P9 = {"vot": "P9.Cp.Cd", "vtm": MARK}
METHODS = {"amr_required": ("mfa", "hwk")}
HUGE = 10**60
NOT_NUMERIC_DATES: list[tuple[str, Any]] = [
    ("text", str(NOW)),
    ("true", True),
    ("null", None),
    ("a list", [NOW]),
    ("an object", {}),
    ("huge", HUGE),
    ("a huge float", 1e300),
    ("negative", -1),
]


def no_dates(name: str, declared: dict[str, Any], accepted: dict[str, Any]) -> list[Row]:
    return [(f"{kind}", declared, accepted, {name: value}) for kind, value in NOT_NUMERIC_DATES]


TABLES: dict[Code, list[Row]] = {
    # name, declaration, accepted changes, refused changes
    Code.ISS_INVALID: [
        ("another", ONE, {}, {"iss": "https://evil.example"}),
        ("a slash more", ONE, {}, {"iss": OP + "/"}),
        ("upper case", ONE, {}, {"iss": "https://OP.example"}),
        ("missing", ONE, {}, {"iss": ABSENT}),
        ("a list", ONE, {}, {"iss": [OP]}),
    ],
    Code.AUD_INVALID: [
        ("another", ONE, {}, {"aud": "another"}),
        ("missing", ONE, {}, {"aud": ABSENT}),
        ("empty list", ONE, {"aud": ["portal"]}, {"aud": []}),
        (
            "list without this client",
            TWO,
            {"aud": ["api", "portal"], "azp": "portal"},
            {"aud": ["api"], "azp": "portal"},
        ),
        (
            "additional untrusted audience",
            TWO,
            {"aud": ["portal", "api"], "azp": "portal"},
            {"aud": ["portal", "x"], "azp": "portal"},
        ),
        ("upper case", ONE, {}, {"aud": "Portal"}),
        ("part of a text", ONE, {}, {"aud": "portal api"}),
        ("a number in the list", ONE, {"aud": ["portal"]}, {"aud": ["portal", 1], "azp": "portal"}),
        ("a list in the list", ONE, {"aud": ["portal"]}, {"aud": [["portal"]]}),
        ("an object", ONE, {}, {"aud": {"portal": 1}}),
        ("null", ONE, {}, {"aud": None}),
    ],
    Code.AZP_INVALID: [
        ("two audiences without", TWO, {"aud": ["portal", "api"], "azp": "portal"}, {"aud": ["portal", "api"]}),
        ("another", ONE, {"azp": "portal"}, {"azp": "api"}),
        (
            "another, trusted",
            TWO,
            {"aud": ["portal", "api"], "azp": "portal"},
            {"aud": ["portal", "api"], "azp": "api"},
        ),
        ("null", ONE, {}, {"azp": None}),
        ("a list", ONE, {"azp": "portal"}, {"azp": ["portal"]}),
        ("one audience twice", ONE, {"aud": ["portal"]}, {"aud": ["portal", "portal"]}),
    ],
    Code.EXP_INVALID: [
        ("past the leeway", ONE, {"exp": NOW - EDGE + 1}, {"exp": NOW - EDGE}),
        ("past the leeway, fractions", ONE, {"exp": NOW - EDGE + 0.5}, {"exp": NOW - EDGE - 0.5}),
        ("no leeway", {"leeway": timedelta(0)}, {"exp": NOW + 1}, {"exp": NOW}),
        ("long ago", ONE, {}, {"exp": 0}),
        ("missing", ONE, {}, {"exp": ABSENT}),
        *no_dates("exp", ONE, {"exp": NOW + 300.5}),
    ],
    Code.IAT_INVALID: [
        ("over ten minutes old", ONE, {"iat": NOW - 600 - EDGE}, {"iat": NOW - 600 - EDGE - 1}),
        ("in the future", ONE, {"iat": NOW + EDGE}, {"iat": NOW + EDGE + 1}),
        ("no leeway, old", {"leeway": timedelta(0)}, {"iat": NOW - 600}, {"iat": NOW - 601}),
        ("no leeway, future", {"leeway": timedelta(0)}, {"iat": NOW}, {"iat": NOW + 1}),
        ("the widest leeway", {"leeway": timedelta(seconds=120)}, {"iat": NOW + 120}, {"iat": NOW + 121}),
        ("missing", ONE, {}, {"iat": ABSENT}),
        *no_dates("iat", ONE, {"iat": NOW - 0.5}),
    ],
    Code.NBF_INVALID: [
        ("in the future", ONE, {"nbf": NOW + EDGE}, {"nbf": NOW + EDGE + 1}),
        ("no leeway", {"leeway": timedelta(0)}, {"nbf": NOW}, {"nbf": NOW + 1}),
        *no_dates("nbf", ONE, {"nbf": ABSENT}),
    ],
    Code.NONCE_INVALID: [
        ("missing", ONE, {}, {"nonce": ABSENT}),
        ("not issued by us", ONE, {}, {"nonce": "foreign"}),
        ("longer", ONE, {}, {"nonce": "the-nonce-"}),
        ("empty", ONE, {}, {"nonce": ""}),
        ("null", ONE, {}, {"nonce": None}),
        ("a list", ONE, {}, {"nonce": ["the-nonce"]}),
        ("not ASCII", ONE, {}, {"nonce": "the-nöncé"}),
    ],
    Code.TOKEN_REPLAYED: [("the nonce of an earlier sign-in", ONE, {}, {"nonce": "an-earlier-nonce"})],
    Code.SUB_INVALID: [
        ("missing", ONE, {}, {"sub": ABSENT}),
        ("empty", ONE, {"sub": "x"}, {"sub": ""}),
        ("256 characters", ONE, {"sub": "x" * 255}, {"sub": "x" * 256}),
        ("not ASCII", ONE, {"sub": "Jorg"}, {"sub": "Jörg"}),
        ("a number", ONE, {"sub": "248289761001"}, {"sub": 248289761001}),
        ("null", ONE, {}, {"sub": None}),
        ("a list", ONE, {}, {"sub": ["x"]}),
        ("line end", ONE, {}, {"sub": "x\n"}),
        ("delete", ONE, {"sub": "a b~"}, {"sub": "a b\x7f"}),
        ("not pairwise and not a text", {"subject_type": "public"}, {"sub": "a@b"}, {"sub": 1}),
    ],
    Code.SUB_NOT_PAIRWISE: [
        ("the e-mail address", ONE, {"email": "j@op.example"}, {"sub": "j@op.example", "email": "j@op.example"}),
        ("form of an address", {}, {"sub": "jane.op.example"}, {"sub": "jane@op.example"}),
        ("form of a local address", ONE, {"sub": "jane"}, {"sub": "jane@localhost"}),
        ("address with a scheme", ONE, {"sub": "acct:jane"}, {"sub": "acct:jane@op.example"}),
        ("the email claim, no address", ONE, {"sub": "jane", "email": "j"}, {"sub": "jane", "email": "jane"}),
        (
            "the user name",
            ONE,
            {"sub": "jane", "preferred_username": "j"},
            {"sub": "jane", "preferred_username": "jane"},
        ),
        (
            "the user name's case",
            ONE,
            {"sub": "jane", "preferred_username": "j"},
            {"sub": "jane", "preferred_username": "Jane"},
        ),
        ("the phone number", ONE, {"sub": "+1", "phone_number": "+2"}, {"sub": "+1", "phone_number": "+1"}),
    ],
    Code.ACR_INSUFFICIENT: [
        ("weaker", STRONG, {"acr": "urn:stronger"}, {"acr": "urn:weak"}),
        ("missing", STRONG, {"acr": "urn:strong"}, {}),
        ("a list", STRONG, {"acr": "urn:strong"}, {"acr": ["urn:strong"]}),
        ("both in one string", STRONG, {"acr": "urn:strong"}, {"acr": "urn:strong urn:stronger"}),
        ("null", STRONG, {"acr": "urn:strong"}, {"acr": None}),
        ("requested, not accepted", ANSWERED, {"acr": "urn:answer"}, {"acr": "urn:preferred"}),
        ("accepted without a request", {"acr_accepted": ("urn:a",)}, {"acr": "urn:a"}, {"acr": "urn:b"}),
    ],
    Code.VTM_INVALID: [
        ("another", VECTORS, P9, {**P9, "vtm": "https://evil.example/mark"}),
        ("a slash more", VECTORS, P9, {**P9, "vtm": f"{MARK}/"}),
        ("missing", VECTORS, P9, {"vot": "P9.Cp.Cd"}),
        ("a list", VECTORS, P9, {**P9, "vtm": [MARK]}),
        ("none declared, none sent", {"vtr": ("P9",), "vtm": MARK}, P9, {**P9, "vtm": ""}),
    ],
    Code.VOT_INSUFFICIENT: [
        ("a component less", VECTORS, P9, {**P9, "vot": "P9.Cp"}),
        ("another value", VECTORS, P9, {**P9, "vot": "P5.Cp.Cd"}),
        ("components of two vectors", VECTORS, {**P9, "vot": "Cm.P9"}, {**P9, "vot": "P9.Cd"}),
        ("missing", VECTORS, P9, {"vtm": MARK}),
        ("a list", VECTORS, P9, {**P9, "vot": ["P9.Cp.Cd"]}),
        ("a vector in a text", VECTORS, P9, {**P9, "vot": "P9.Cp.Cd "}),
        ("lower case", VECTORS, P9, {**P9, "vot": "p9.cp.cd"}),
    ],
    Code.AMR_INSUFFICIENT: [
        ("another method", METHODS, {"amr": ["pwd", "mfa"]}, {"amr": ["pwd", "otp"]}),
        ("one of two is enough", METHODS, {"amr": ["hwk"]}, {"amr": ["HWK"]}),
        ("missing", METHODS, {"amr": ["mfa"]}, {}),
        ("empty", METHODS, {"amr": ["mfa"]}, {"amr": []}),
        ("a string", METHODS, {"amr": ["mfa"]}, {"amr": "mfa"}),
        ("an object", METHODS, {"amr": ["mfa"]}, {"amr": {"mfa": True}}),
        ("a list in the list", METHODS, {"amr": ["mfa"]}, {"amr": ["mfa", ["pwd"]]}),
    ],
    Code.AUTH_TIME_MISSING: [
        ("missing", AGED, {"auth_time": NOW}, {}),
        ("missing at max_age 0", {"max_age": 0}, {"auth_time": NOW}, {}),
        *no_dates("auth_time", AGED, {"auth_time": NOW - 0.5}),
        ("missing where 0 passes", UNTOLD, {"auth_time": 0}, {}),
        ("false where 0 passes", UNTOLD, {"auth_time": 0.0}, {"auth_time": False}),
        ("text where 0 passes", UNTOLD, {"auth_time": 0}, {"auth_time": "0"}),
    ],
    Code.AUTH_TIME_STALE: [
        ("too old", AGED, {"auth_time": NOW - 60 - EDGE}, {"auth_time": NOW - 60 - EDGE - 1}),
        ("before this sign-in", {"max_age": 0}, {"auth_time": NOW - EDGE}, {"auth_time": NOW - EDGE - 1}),
        ("in the future", AGED, {"auth_time": NOW + EDGE}, {"auth_time": NOW + EDGE + 1}),
        ("always 0, as one provider sends it", AGED, {"auth_time": NOW}, {"auth_time": 0}),
        ("1 where 0 passes", UNTOLD, {"auth_time": 0}, {"auth_time": 1}),
        ("too old where 0 passes", UNTOLD, {"auth_time": NOW - 60 - EDGE}, {"auth_time": NOW - 60 - EDGE - 1}),
    ],
    Code.ID_TOKEN_LIFETIME: [
        ("over five minutes", HEART, {"exp": NOW + 300}, {"exp": NOW + 301}),
        (
            "over five minutes, issued a while ago",
            HEART,
            {"iat": NOW - 200, "exp": NOW + 100},
            {"iat": NOW - 201, "exp": NOW + 100},
        ),
        ("over before it was issued", HEART, {"iat": NOW, "exp": NOW}, {"iat": NOW + 1, "exp": NOW}),
        ("fractions", HEART, {"exp": NOW + 300.0}, {"exp": NOW + 300.5}),
    ],
    Code.AT_HASH_INVALID: [
        ("another", ONE, {"at_hash": AT_HASH}, {"at_hash": "87QmUPtjPfzWtF2AnpK9RQ"}),
        ("padded", ONE, {"at_hash": AT_HASH}, {"at_hash": AT_HASH + "=="}),
        ("empty", ONE, {"at_hash": AT_HASH}, {"at_hash": ""}),
        ("null", ONE, {}, {"at_hash": None}),
        ("a number", ONE, {"at_hash": AT_HASH}, {"at_hash": 77}),
        ("not ASCII", ONE, {"at_hash": AT_HASH}, {"at_hash": AT_HASH[:-1] + "é"}),
    ],
}
ROWS = [pytest.param(error, *row[1:], id=f"{error}: {row[0]}") for error, rows in TABLES.items() for row in rows]


@pytest.mark.parametrize(("error", "declared", "accepted", "refused"), ROWS)
def test_verify_id_token_one_claim_wrong_is_refused(
    verify: Verify,
    sign: Sign,
    error: Code,
    declared: dict[str, Any],
    accepted: dict[str, Any],
    refused: dict[str, Any],
) -> None:
    assert verify(sign(claims(**accepted)), **declared) == claims(**accepted)
    with raises(error) as caught:
        verify(sign(claims(**refused)), **declared)
    assert caught.value.code is error
    assert caught.value.__context__ is None


def test_validate_vtm_without_a_declared_trust_mark_is_vtm_invalid() -> None:
    validate_vtm({"vtm": MARK}, vtm=MARK)
    for sent in ({}, {"vtm": ""}, {"vtm": MARK}):
        with raises(Code.VTM_INVALID):
            validate_vtm(sent, vtm="")


@pytest.mark.parametrize(
    ("sent", "vtm", "vot"),
    [
        (P9, MARK, "P9.Cp.Cd"),
        (P9, "", ""),
        (P9, f"{MARK}/", ""),
        ({**P9, "vtm": None}, MARK, ""),
        ({**P9, "vot": "gold"}, MARK, ""),
        ({**P9, "vot": ["P9"]}, MARK, ""),
        ({}, "", ""),
    ],
)
def test_vector_of_trust_is_known_only_under_the_declared_trust_mark(sent: Any, vtm: str, vot: str) -> None:
    assert find_vector_of_trust(sent, vtm=vtm) == vot


def test_verify_id_token_every_code_of_r6_has_a_table() -> None:
    of_the_envelope = {Code.TOKEN_MALFORMED, Code.ALG_NOT_ALLOWED, Code.SIGNATURE_INVALID, Code.TYP_INVALID}
    of_the_envelope |= {Code.ENCRYPTION_UNDECLARED, Code.ENCRYPTION_MISSING, Code.DECRYPTION_FAILED}
    assert {code for code in Code if code.rule == "R6"} == set(TABLES) | of_the_envelope


@pytest.mark.parametrize("alg", SIGNATURE_ALGORITHMS)
def test_verify_id_token_each_alg_passes_when_it_is_declared(verify: Verify, sign: Sign, alg: str) -> None:
    others = tuple(other for other in SIGNATURE_ALGORITHMS if other != alg)
    token = sign(claims(), alg=alg)
    assert verify(token, id_token_signed_response_alg=(alg,)) == claims()
    with raises(Code.ALG_NOT_ALLOWED) as caught:
        verify(token, id_token_signed_response_alg=others)
    assert caught.value.code == "alg_not_allowed"


@pytest.mark.parametrize("alg", ["PS256", "ES256", "EdDSA", "Ed25519", "RS256"])
def test_verify_id_token_alg_of_the_default_passes(verify: Verify, sign: Sign, alg: str) -> None:
    assert verify(sign(claims(), alg=alg)) == claims()


@pytest.mark.parametrize("alg", ["PS384", "PS512", "ES384", "ES512", "RS384", "RS512"])
def test_verify_id_token_other_alg_must_be_declared(verify: Verify, sign: Sign, alg: str) -> None:
    token = sign(claims(), alg=alg)
    assert verify(token, id_token_signed_response_alg=(alg,)) == claims()
    with raises(Code.ALG_NOT_ALLOWED):
        verify(token)


@pytest.mark.parametrize("alg", ["none", "None", "HS256", "HS512", "RS1", "ES256K", "Ed448", "es256", ""])
def test_verify_id_token_unsupported_alg_is_refused_even_when_declared(verify: Verify, sign: Sign, alg: str) -> None:
    token = sign(claims(), alg="RS256", header={"alg": alg})
    for declared in ({}, {"id_token_signed_response_alg": (alg,)}):
        with raises(Code.ALG_NOT_ALLOWED):
            verify(token, **declared)
    assert verify(sign(claims(), alg="RS256")) == claims()


@pytest.mark.parametrize("typ", ["logout+jwt", "at+jwt", "application/at+jwt", "Logout+JWT", "secevent+jwt"])
def test_b2_verify_id_token_with_the_typ_of_another_token_is_refused(verify: Verify, sign: Sign, typ: str) -> None:
    for accepted in ({}, {"typ": "JWT"}, {"typ": "application/jwt"}, {"typ": ""}, {"typ": "ID"}):
        assert verify(sign(claims(), header=accepted)) == claims()
    with raises(Code.TYP_INVALID):
        verify(sign(claims(), header={"typ": typ}))


def test_verify_id_token_hs256_with_the_public_key_is_refused(verify: Verify, jwks: dict[str, Any]) -> None:
    head = encode_b64url(json.dumps({"alg": "HS256", "kid": "rsa"}).encode())
    signing_input = f"{head}.{encode_b64url(json.dumps(CLAIMS).encode())}"
    mac = hashlib.sha256(jwks["keys"][0]["n"].encode() + signing_input.encode()).digest()
    with raises(Code.ALG_NOT_ALLOWED):
        verify(f"{signing_input}.{encode_b64url(mac)}")


@pytest.mark.parametrize("alg", ["PS256", "ES256", "EdDSA", "RS256"])
@pytest.mark.parametrize("damage", ["payload", "header", "signature", "empty-ish", "of another"])
def test_verify_id_token_damaged_after_signing_is_signature_invalid(
    verify: Verify, sign: Sign, alg: str, damage: str
) -> None:
    token = sign(claims(), alg=alg)
    header, payload, signature = token.split(".")
    other = sign(claims(sub="mallory"), alg=alg).split(".")
    forged = {
        "payload": f"{header}.{other[1]}.{signature}",
        "header": f"{sign(claims(), alg=alg, header={'typ': 'JWT'}).split('.')[0]}.{payload}.{signature}",
        "signature": f"{header}.{payload}.{('B' if signature[0] == 'A' else 'A') + signature[1:]}",
        "empty-ish": f"{header}.{payload}.AAAA",
        "of another": f"{header}.{payload}.{other[2]}",
    }[damage]
    assert verify(token) == claims()
    with raises(Code.SIGNATURE_INVALID) as caught:
        verify(forged)
    assert caught.value.code == "signature_invalid"


def test_verify_id_token_alg_swapped_between_rsa_paddings_is_signature_invalid(verify: Verify, sign: Sign) -> None:
    for alg, claimed in (("PS256", "RS256"), ("RS256", "PS256"), ("PS384", "PS256"), ("RS512", "RS256")):
        assert verify(sign(claims(), alg=alg), id_token_signed_response_alg=(alg,)) == claims()
        with raises(Code.SIGNATURE_INVALID):
            verify(sign(claims(), alg=alg, header={"alg": claimed}), id_token_signed_response_alg=(alg, claimed))


@pytest.mark.parametrize(("alg", "kid"), [("ES256", "p384"), ("ES384", "p256"), ("ES512", "p384"), ("ES384", "p521")])
def test_verify_id_token_key_on_another_curve_is_key_not_found(verify: Verify, sign: Sign, alg: str, kid: str) -> None:
    """RFC 7518 3.4: ES256 is P-256 with SHA-256, ES384 is P-384 with SHA-384, ES512 is P-521 with SHA-512."""
    declared = {"id_token_signed_response_alg": (alg,)}
    assert verify(sign(claims(), alg=alg), **declared) == claims()
    with raises(KeyNotFound):
        verify(sign(claims(), alg=alg, header={"kid": kid}), **declared)


def test_verify_id_token_unknown_kid_is_key_not_found(verify: Verify, sign: Sign) -> None:
    assert verify(sign(claims(), header={"kid": "p256"})) == claims()
    with raises(KeyNotFound):
        verify(sign(claims(), header={"kid": "unknown"}))
    with raises(KeyNotFound):
        verify(sign(claims(), header={"kid": "rsa"}))


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": {"kty": "oct", "k": "AA"}},
        {"jku": "https://evil.example/jwks"},
        {"x5u": "https://evil.example/"},
        {"x5c": ["x"]},
    ],
)
def test_verify_id_token_key_in_the_header_is_not_used(verify: Verify, sign: Sign, header: dict[str, Any]) -> None:
    assert verify(sign(claims(), header=header)) == claims()
    with raises(KeyNotFound):
        verify(sign(claims(), header={**header, "kid": "evil"}))


@pytest.mark.parametrize(
    "payload",
    [b"[]", b"null", b"x", b'{"iss":"a","iss":"b"}', b'{"exp":NaN}', b'{"exp":1e999}', b"\xff", b'{"a":' * 30],
)
def test_verify_id_token_signed_malformed_payload_is_token_malformed(
    verify: Verify, sign: Sign, payload: bytes
) -> None:
    assert verify(sign(json.dumps(CLAIMS).encode())) == claims()
    with raises(Code.TOKEN_MALFORMED) as caught:
        verify(sign(payload))
    assert caught.value.code == "token_malformed"


def test_verify_id_token_crit_is_token_malformed(verify: Verify, sign: Sign) -> None:
    assert verify(sign(claims(), header={"exp": 1})) == claims()
    with raises(Code.TOKEN_MALFORMED):
        verify(sign(claims(), header={"crit": ["exp"], "exp": 1}))


def test_verify_id_token_forged_token_reveals_nothing_about_its_claims(verify: Verify, sign: Sign) -> None:
    header, payload, _ = sign(claims(iss="x", aud="x", exp=1, nonce="x", sub="")).split(".")
    with raises(Code.SIGNATURE_INVALID):
        verify(f"{header}.{payload}.AAAA")
    with raises(Code.ISS_INVALID):
        verify(sign(claims(iss="x", aud="x", exp=1, nonce="x", sub="")))


def test_verify_id_token_unsigned_nonce_is_never_looked_up(
    keys: JSONWebKeySet, declare: Declare, sign: Sign, now: datetime
) -> None:
    looked_up: list[str] = []

    def issued(nonce: str) -> bool:
        looked_up.append(nonce)
        return True

    def verify(token: str) -> Any:
        return verify_id_token(
            token,
            keys=keys,
            declaration=declare(),
            expected_nonce="n",
            is_issued_nonce=issued,
            access_token="at",
            now=now,
        )

    token = sign(claims(nonce="another"))
    with raises(Code.SIGNATURE_INVALID):
        verify(token.rpartition(".")[0] + ".AAAA")
    assert looked_up == []
    with raises(Code.TOKEN_REPLAYED):
        verify(token)
    assert looked_up == ["another"]


@pytest.mark.parametrize(
    ("alg", "name"),
    [(f"{family}{bits}", f"sha{bits}") for family in ("PS", "ES", "RS") for bits in (256, 384, 512)]
    + [("EdDSA", "sha512"), ("Ed25519", "sha512")],
)
def test_verify_id_token_at_hash_uses_the_hash_of_alg(verify: Verify, sign: Sign, alg: str, name: str) -> None:
    def at_hash(name: str) -> str:
        digest = hashlib.new(name, ACCESS_TOKEN.encode()).digest()
        return encode_b64url(digest[: len(digest) // 2])

    declared = {"id_token_signed_response_alg": (alg,)}
    assert at_hash("sha256") == AT_HASH
    assert verify(sign(claims(at_hash=at_hash(name)), alg=alg), **declared)["at_hash"] == at_hash(name)
    for other in {"sha256", "sha384", "sha512"} - {name}:
        with raises(Code.AT_HASH_INVALID):
            verify(sign(claims(at_hash=at_hash(other)), alg=alg), **declared)


def test_verify_id_token_public_subject_may_look_like_an_address(verify: Verify, sign: Sign) -> None:
    token = sign(claims(sub="jane@op.example", email="jane@op.example"))
    assert verify(token, subject_type="public")["sub"] == "jane@op.example"
    with raises(Code.SUB_NOT_PAIRWISE):
        verify(token, subject_type="pairwise")


def test_verify_id_token_auth_time_and_acr_are_not_checked_unless_requested(verify: Verify, sign: Sign) -> None:
    token = sign(claims(auth_time="never", acr=["x"], vot=7, vtm="", amr="pwd"))
    assert verify(token)["auth_time"] == "never"
    assert parse_numeric_date("never") is None


@pytest.mark.parametrize(
    ("auth_time", "expected"),
    [
        (NOW, datetime(2026, 11, 24, 12, 0, tzinfo=UTC)),
        (1, datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)),
        (0, None),
        (0.0, None),
        (False, None),
        ("never", None),
        (ABSENT, None),
    ],
)
def test_auth_time_of_zero_is_unknown(verify: Verify, sign: Sign, auth_time: object, expected: datetime | None) -> None:
    assert find_auth_time(verify(sign(claims(auth_time=auth_time)))) == expected


def test_verify_id_token_long_lifetime_is_accepted_outside_heart(verify: Verify, sign: Sign) -> None:
    token = sign(claims(exp=NOW + 86_400))
    assert verify(token)["exp"] == NOW + 86_400
    with raises(Code.ID_TOKEN_LIFETIME):
        verify(token, **HEART)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (NOW + 0.5, datetime(2026, 11, 24, 12, 0, 0, 500_000, tzinfo=UTC)),
        (253402214399, datetime(9999, 12, 30, 23, 59, 59, tzinfo=UTC)),
        (253402214400, None),
        (253402300799, None),
        (float("nan"), None),
        (float("inf"), None),
        (False, None),
        ("1", None),
        (-1, None),
    ],
)
def test_numeric_date_is_a_time_only_for_a_number(value: object, expected: datetime | None) -> None:
    assert parse_numeric_date(value) == expected
    for hours in (-23, 23):
        # The time zone of a host project also gives a valid datetime.
        assert expected is None or expected.astimezone(timezone(timedelta(hours=hours))) == expected


ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**70), max_value=10**70)
    | st.floats()
    | st.text(alphabet=st.characters(exclude_categories=()))
    | st.sampled_from(["portal", OP, NOW]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NAMES = [*CLAIMS, "azp", "nbf", "acr", "auth_time", "at_hash", "email", "preferred_username", "phone_number"]


@given(
    changes=st.dictionaries(st.sampled_from(NAMES), ANY_JSON, max_size=3),
    header=st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "cty", "b64"]), ANY_JSON, max_size=1),
)
def test_verify_id_token_any_signed_claims_are_verified_or_refused_by_our_error(
    verify: Verify, sign: Sign, changes: dict[str, Any], header: dict[str, Any]
) -> None:
    token = sign({**CLAIMS, **changes}, alg="EdDSA", header=header)
    for declared in ({}, {"max_age": 60}, {"acr_values": ("portal",), "subject_type": "public"}):
        try:
            result: object = verify(token, **declared)
        except SignInRefused as error:
            result = error
        assert isinstance(result, dict | IDTokenError | KeyNotFound)


@given(st.text() | st.text(alphabet="eyJhbGciOi.-_=", max_size=40))
def test_verify_id_token_any_text_is_token_malformed_or_not_allowed(verify: Verify, text: str) -> None:
    with raises((Code.TOKEN_MALFORMED, Code.ALG_NOT_ALLOWED, KeyNotFound)):
        verify(text)


def test_verify_id_token_rs256_takes_little_longer_than_the_signature_check(
    sign: Sign, keys: JSONWebKeySet, declare: Declare, now: datetime
) -> None:
    token, declaration = sign(claims(), alg="RS256"), declare()
    jws, key = parse_compact_jws(token), keys.get_key(kid="rsa", alg="RS256")

    def fastest(call: Callable[[], object]) -> float:
        times = []
        for _ in range(200):
            before = time.perf_counter()
            call()
            times.append(time.perf_counter() - before)
        return min(times)

    signature_check = fastest(lambda: key.verify("RS256", jws.signing_input, jws.signature))
    whole = fastest(
        lambda: verify_id_token(
            token,
            keys=keys,
            declaration=declaration,
            expected_nonce="the-nonce",
            is_issued_nonce=ISSUED.__contains__,
            access_token=ACCESS_TOKEN,
            now=now,
        )
    )
    assert whole < 5 * signature_check
