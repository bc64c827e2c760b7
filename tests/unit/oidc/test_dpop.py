"""Proofs of possession: the examples of RFC 9449, and each rule of 4.3 next to a proof that differs in one thing."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwk as joserfc_jwk
from joserfc import jwt as joserfc_jwt

from django_phi_oidc.contrib.common.api_errors import DPoPProofInvalid
from django_phi_oidc.contrib.common.dpop_proofs import normalize_url, verify_proof
from django_phi_oidc.oidc.dpop import (
    SEED_BYTES,
    ProofKey,
    compute_ath,
    create_proof,
    create_proof_key,
    find_nonce,
    get_origin,
    is_dpop_enabled,
    is_nonce_required,
)
from django_phi_oidc.oidc.jose import encode_b64url, parse_compact_jws
from django_phi_oidc.oidc.metadata import ProviderMetadata
from tests.support.protocol_fixtures import KIDS

HEADER_EXAMPLE = (
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJo"
    "RjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19"
)
TOKEN_REQUEST_EXAMPLE = (
    f"{HEADER_EXAMPLE}.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29t"
    "L3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ."
    "2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
)
"""RFC 9449 4.1, figure 1."""
RESOURCE_REQUEST_EXAMPLE = (
    f"{HEADER_EXAMPLE}.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9y"
    "Zy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtz"
    "bVFFbyJ9."
    "2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
)
"""RFC 9449 7.1, figure 12."""
TOKEN_EXAMPLE = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
THUMBPRINT_EXAMPLE = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
"""RFC 9449 6.1, figure 8."""

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
URL = "https://portal.example/fhir/Patient?_id=7"
CLAIMS: dict[str, Any] = {
    "jti": "a-jti",
    "htm": "GET",
    "htu": "https://portal.example/fhir/Patient",
    "iat": int(NOW.timestamp()),
    "ath": compute_ath("a-token"),
}
ABSENT = object()
Sign = Callable[..., str]


@pytest.fixture(scope="module")
def key() -> ProofKey:
    return create_proof_key(encode_b64url(bytes(range(SEED_BYTES))))


@pytest.fixture
def check(sign: Sign, jwks: dict[str, Any]) -> Callable[..., Any]:
    """check(claims, header=…, alg=…, …): verify a proof with these changes as part of the request for URL."""
    jwk_by_kid = {jwk["kid"]: {name: jwk[name] for name in jwk.keys() - {"kid", "use"}} for jwk in jwks["keys"]}

    def check(
        claims: dict[str, Any], *, header: dict[str, Any] | None = None, alg: str = "ES256", **expected: Any
    ) -> Any:
        jwk = jwk_by_kid[KIDS.get(alg, "rsa")]
        members = {"typ": "dpop+jwt", "jwk": jwk, **(header or {})}
        payload = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not ABSENT}
        proof = sign(payload, alg=alg, header={name: value for name, value in members.items() if value is not ABSENT})
        request = {"method": "GET", "url": URL, "now": NOW, "access_token": "a-token", **expected}
        return verify_proof(proof, **request)

    return check


def test_examples_of_rfc_9449_are_verified() -> None:
    now = datetime.fromtimestamp(1562262620, UTC)
    token_request = verify_proof(TOKEN_REQUEST_EXAMPLE, method="POST", url="https://server.example.com/token", now=now)
    assert (token_request.thumbprint, token_request.jti) == (THUMBPRINT_EXAMPLE, "-BwC3ESc6acc2lTc")
    request = verify_proof(
        RESOURCE_REQUEST_EXAMPLE,
        method="GET",
        url="https://resource.example.org/protectedresource",
        now=now,
        access_token=TOKEN_EXAMPLE,
        thumbprint=THUMBPRINT_EXAMPLE,
    )
    assert request.issued_at == datetime.fromtimestamp(1562262618, UTC)
    assert compute_ath(TOKEN_EXAMPLE) == "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"


def test_proof_is_verified_by_another_library(key: ProofKey) -> None:
    proof = create_proof(key, method="POST", url="https://op.example/token?a=b#c", jti="j", now=NOW, nonce="n")
    header = parse_compact_jws(proof).header
    assert set(header) == {"typ", "alg", "jwk"}
    assert set(header["jwk"]) == {"kty", "crv", "x", "y"}
    public_key = joserfc_jwk.ECKey.import_key(header["jwk"])
    assert joserfc_jwt.decode(proof, public_key, algorithms=["ES256"]).claims == {
        "jti": "j",
        "htm": "POST",
        "htu": "https://op.example/token",
        "iat": int(NOW.timestamp()),
        "nonce": "n",
    }
    assert public_key.thumbprint() == key.thumbprint


def test_proof_for_an_api_is_bound_to_the_token(key: ProofKey) -> None:
    proof = create_proof(key, method="GET", url=URL, jti="j", now=NOW, access_token="a-token")
    expected: dict[str, Any] = {"method": "GET", "url": URL, "now": NOW, "thumbprint": key.thumbprint}
    assert verify_proof(proof, access_token="a-token", **expected).jti == "j"
    with pytest.raises(DPoPProofInvalid) as fault:
        verify_proof(proof, access_token="another", **expected)
    assert fault.value.rule == "dpop_ath"


Row = tuple[str, dict[str, Any], dict[str, Any]]
TABLES: dict[str, list[Row]] = {
    # fault, accepted arguments of check, refused ones
    "dpop_typ": [
        ("absent", {}, {"header": {"typ": ABSENT}}),
        ("JWT", {"header": {"typ": "application/dpop+jwt"}}, {"header": {"typ": "JWT"}}),
        ("an access token", {"header": {"typ": "DPoP+JWT"}}, {"header": {"typ": "at+jwt"}}),
    ],
    "dpop_alg": [
        ("RS256", {"alg": "PS256"}, {"alg": "RS256"}),
        ("ES384", {"alg": "EdDSA"}, {"alg": "ES384"}),
    ],
    "dpop_jwk": [
        ("absent", {}, {"header": {"jwk": ABSENT}}),
        ("text", {"alg": "Ed25519"}, {"header": {"jwk": "x"}}),
        ("a symmetric key", {}, {"header": {"jwk": {"kty": "oct", "k": "AAAA"}}}),
        ("without y", {}, {"header": {"jwk": {"kty": "EC", "crv": "P-256", "x": "AAAA"}}}),
    ],
    "dpop_jti": [
        ("absent", {}, {"jti": ABSENT}),
        ("empty", {"jti": "x"}, {"jti": ""}),
        ("a number", {}, {"jti": 7}),
        ("too long", {"jti": "x" * 255}, {"jti": "x" * 256}),
    ],
    "dpop_htm": [
        ("absent", {}, {"htm": ABSENT}),
        ("another", {}, {"htm": "POST"}),
        ("in lower case", {}, {"htm": "get"}),
    ],
    "dpop_htu": [
        ("absent", {}, {"htu": ABSENT}),
        ("another path", {}, {"htu": "https://portal.example/fhir/Patient/7"}),
        ("another host", {}, {"htu": "https://portal.example.org/fhir/Patient"}),
        ("http", {"htu": "HTTPS://PORTAL.example:443/fhir/./Patient"}, {"htu": "http://portal.example/fhir/Patient"}),
        (
            "another port",
            {"htu": "https://portal.example/x/../fhir/P%61tient"},
            {"htu": "https://portal.example:444/fhir/Patient"},
        ),
        (
            "case of the path",
            {"htu": "https://portal.example/fhir/Patient?_id=8#x"},
            {"htu": "https://portal.example/fhir/patient"},
        ),
        ("userinfo", {}, {"htu": "https://a@portal.example/fhir/Patient"}),
        ("no URL", {}, {"htu": "/fhir/Patient"}),
        ("a wrong port", {}, {"htu": "https://portal.example:x/fhir/Patient"}),
    ],
    "dpop_iat": [
        ("absent", {}, {"iat": ABSENT}),
        ("text", {}, {"iat": str(CLAIMS["iat"])}),
        ("too old", {"iat": CLAIMS["iat"] - 60}, {"iat": CLAIMS["iat"] - 61}),
        ("in the future", {"iat": CLAIMS["iat"] + 10}, {"iat": CLAIMS["iat"] + 11}),
    ],
    "dpop_ath": [
        ("absent", {}, {"ath": ABSENT}),
        ("of another token", {}, {"ath": compute_ath("another")}),
    ],
    "dpop_nonce": [
        ("empty", {"nonce": "n"}, {"nonce": ""}),
        ("null", {}, {"nonce": None}),
    ],
}
ROWS = [(rule, *row) for rule, rows in TABLES.items() for row in rows]
OPTIONS = ("header", "alg")


@pytest.mark.parametrize(
    ("rule", "accepted", "refused"),
    [(rule, *rest) for rule, _, *rest in ROWS],
    ids=[f"{rule}: {name}" for rule, name, *_ in ROWS],
)
def test_proof_with_one_fault_is_refused(
    rule: str, accepted: dict[str, Any], refused: dict[str, Any], check: Callable[..., Any]
) -> None:
    def run(changes: dict[str, Any]) -> Any:
        options = {name: changes[name] for name in OPTIONS if name in changes}
        return check({name: value for name, value in changes.items() if name not in OPTIONS}, **options)

    assert run(accepted)
    with pytest.raises(DPoPProofInvalid) as fault:
        run(refused)
    assert fault.value.rule == rule


def test_private_key_in_the_header_is_refused(check: Callable[..., Any], key: ProofKey, jwks: dict[str, Any]) -> None:
    (public,) = (
        {name: jwk[name] for name in jwk.keys() - {"kid", "use"}} for jwk in jwks["keys"] if jwk["kid"] == "p256"
    )
    assert check({}, header={"jwk": public})
    with pytest.raises(DPoPProofInvalid) as fault:
        check({}, header={"jwk": {**public, "d": public["x"]}})
    assert fault.value.rule == "dpop_jwk"


def test_signature_of_another_key_is_refused(check: Callable[..., Any], key: ProofKey) -> None:
    with pytest.raises(DPoPProofInvalid) as fault:
        check({}, header={"jwk": dict(key.public_jwk)})
    assert fault.value.rule == "dpop_signature"


def test_proof_of_another_key_than_that_of_the_token_is_refused(key: ProofKey) -> None:
    other = create_proof_key(encode_b64url(bytes(SEED_BYTES)))
    proof = create_proof(key, method="GET", url=URL, jti="j", now=NOW)
    assert verify_proof(proof, method="GET", url=URL, now=NOW, thumbprint=key.thumbprint)
    with pytest.raises(DPoPProofInvalid) as fault:
        verify_proof(proof, method="GET", url=URL, now=NOW, thumbprint=other.thumbprint)
    assert fault.value.rule == "dpop_jkt"


@given(st.text() | st.just(TOKEN_REQUEST_EXAMPLE[:-1]) | st.just(f"{TOKEN_REQUEST_EXAMPLE},{TOKEN_REQUEST_EXAMPLE}"))
def test_malformed_proof_is_refused(text: str) -> None:
    with pytest.raises(DPoPProofInvalid) as fault:
        verify_proof(text, method="GET", url=URL, now=NOW)
    assert fault.value.rule == "dpop_malformed"
    assert fault.value.__context__ is None or fault.value.__suppress_context__


def test_key_of_a_seed_is_always_the_same_and_of_no_other_length() -> None:
    seed = encode_b64url(b"\xff" * SEED_BYTES)
    assert create_proof_key(seed).thumbprint == create_proof_key(seed).thumbprint
    assert seed not in repr(create_proof_key(seed))
    for wrong in ("", encode_b64url(b"\xff" * (SEED_BYTES - 1)), seed + "="):
        with pytest.raises(ValueError, match="Not"):
            create_proof_key(wrong)


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://a.example", "https://a.example/"),
        ("https://a.example/a/../../b/./c/..", "https://a.example/b/"),
        ("https://a.example/%7euser/%2f", "https://a.example/~user/%2F"),
        ("HTTPS://A.example:443/A?b#c", "https://a.example/A"),
        ("http://[::1]:80/", "http://[::1]/"),
        ("https://a.example:80//b", "https://a.example:80//b"),
    ],
)
def test_normal_form_of_a_url(url: str, normal: str) -> None:
    assert normalize_url(url) == normal
    assert get_origin(url) == normal[: normal.index("/", len("https://"))]


@pytest.mark.parametrize(
    ("nonce", "found"), [("abc-._~+/=", True), ("x" * 512, True), ("x" * 513, False), ('a"b', False), ("a b", False)]
)
def test_nonce_has_only_the_allowed_characters(nonce: str, found: bool) -> None:
    assert find_nonce({"dpop-nonce": nonce}) == (nonce if found else "")


@pytest.mark.parametrize(
    ("status", "body", "headers", "is_required"),
    [
        (400, {"error": "use_dpop_nonce"}, {"dpop-nonce": "n"}, True),
        (401, {}, {"dpop-nonce": "n", "www-authenticate": 'DPoP error="use_dpop_nonce", algs="ES256"'}, True),
        (400, {"error": "use_dpop_nonce"}, {}, False),
        (400, {"error": "invalid_grant"}, {"dpop-nonce": "n"}, False),
        (200, {"error": "use_dpop_nonce"}, {"dpop-nonce": "n"}, False),
        (401, {}, {"dpop-nonce": "n", "www-authenticate": 'Bearer error="use_dpop_nonce"'}, False),
        (401, {}, {"dpop-nonce": "n", "www-authenticate": 'DPoP error="invalid_token"'}, False),
        (400, {"error": "use_dpop_nonce", "access_token": "a"}, {"dpop-nonce": "n"}, False),
    ],
)
def test_request_is_repeated_only_for_a_nonce(
    status: int, body: Any, headers: dict[str, str], is_required: bool, make_response: Callable[..., Any]
) -> None:
    assert is_nonce_required(make_response(body, status=status, headers=headers)) is is_required


@pytest.mark.parametrize(
    ("dpop", "algs", "is_enabled"),
    [
        ("never", ("ES256",), False),
        ("auto", ("RS256", "ES256"), True),
        ("auto", ("RS256",), False),
        ("require", (), True),
    ],
)
def test_dpop_is_enabled_as_declared(
    dpop: str, algs: tuple[str, ...], is_enabled: bool, declare: Callable[..., Any], metadata: ProviderMetadata
) -> None:
    offered = replace(metadata, dpop_signing_alg_values_supported=algs)
    assert is_dpop_enabled(metadata=offered, declaration=declare(dpop=dpop)) is is_enabled
