"""Which keys of a JWKS are read, which one is chosen, what it verifies. Spec: RFC 7517, 7518, 8037; Core 10.1.1."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from django_phi_oidc.errors import Code, KeyNotFound, MetadataError
from django_phi_oidc.oidc.jose import decode_b64url, encode_b64url, parse_compact_jws
from django_phi_oidc.oidc.jwks import JSONWebKeySet, VerificationKey, parse_jwks
from tests.support.error_codes import raises
from tests.support.roca import create_roca_key

# RFC 7515 appendix A.3 and RFC 8037 appendix A.
ES256_JWK = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}
ES256_JWS = (
    "eyJhbGciOiJFUzI1NiJ9"
    ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
)
ED25519_JWK = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
ED25519_INPUT = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
ED25519_SIGNATURE = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"

ANY_NAME = st.text(alphabet=st.characters(min_codepoint=1, exclude_categories=("Cs",)))
ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | ANY_NAME
    | st.sampled_from(["RSA", "EC", "OKP", "sig", "AQAB", "P-256"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_NAME, inner, max_size=3),
    max_leaves=6,
)


def jwk_of(kind: str) -> dict[str, Any]:
    """Return a new public JWK."""
    create: dict[str, Callable[[], Any]] = {
        "RSA-2048": lambda: rsa.generate_private_key(65537, 2048),
        "RSA-1024": lambda: rsa.generate_private_key(65537, 1024),
        "RSA of ROCA": create_roca_key,
        "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
        "Ed448": ed448.Ed448PrivateKey.generate,
    }
    algorithm: Any = {"R": RSAAlgorithm, "P": ECAlgorithm, "E": OKPAlgorithm}[kind[0]]
    jwk: dict[str, Any] = algorithm.to_jwk(create[kind]().public_key(), as_dict=True)
    jwk.pop("key_ops", None)
    return jwk


def parsed(*jwks: Any) -> tuple[VerificationKey, ...]:
    return parse_jwks(json.dumps({"keys": jwks}).encode()).keys


EC_X = ES256_JWK["x"]
READ_PAIRS = [
    pytest.param(ES256_JWK, {**ES256_JWK, "crv": "P-384"}, id="another curve named"),
    pytest.param(ES256_JWK, {**ES256_JWK, "crv": ["P-256"]}, id="crv is a list"),
    pytest.param(ES256_JWK, {**ES256_JWK, "crv": "secp256k1"}, id="secp256k1 named"),
    pytest.param(ES256_JWK, {**ES256_JWK, "y": EC_X}, id="a point off the curve"),
    pytest.param(ES256_JWK, {**ES256_JWK, "y": 7}, id="y is a number"),
    pytest.param(ES256_JWK, {k: v for k, v in ES256_JWK.items() if k != "y"}, id="no y"),
    pytest.param(ES256_JWK, {**ES256_JWK, "x": EC_X + "="}, id="padding"),
    *(
        pytest.param(
            ES256_JWK,
            {**ES256_JWK, name: encode_b64url(b"\0" + decode_b64url(ES256_JWK[name]))},
            id=f"{name} of 33 octets",
        )
        for name in ("x", "y")
    ),
    pytest.param(ES256_JWK, {**ES256_JWK, "kty": "oct"}, id="oct"),
    pytest.param(ES256_JWK, {**ES256_JWK, "kty": "AKP"}, id="a kty of the future"),
    pytest.param(ES256_JWK, {**ES256_JWK, "kty": ["EC"]}, id="kty is a list"),
    pytest.param(ES256_JWK, {**ES256_JWK, "kty": "ec"}, id="kty in lower case"),
    pytest.param({**ES256_JWK, "kid": "1"}, {**ES256_JWK, "kid": 1}, id="kid is a number"),
    pytest.param({**ES256_JWK, "alg": "ES256"}, {**ES256_JWK, "alg": None}, id="alg is null"),
    pytest.param({**ES256_JWK, "use": "sig"}, {**ES256_JWK, "use": ["sig"]}, id="use is a list"),
    pytest.param({**ES256_JWK, "key_ops": ["verify"]}, {**ES256_JWK, "key_ops": "verify"}, id="key_ops is a string"),
    pytest.param({**ES256_JWK, "key_ops": ["verify"]}, {**ES256_JWK, "key_ops": None}, id="key_ops is null"),
    pytest.param({**ES256_JWK, "key_ops": ["verify"]}, {**ES256_JWK, "key_ops": [{}]}, id="key_ops of objects"),
    pytest.param(ED25519_JWK, {**ED25519_JWK, "crv": "X25519"}, id="X25519"),
    pytest.param(ED25519_JWK, {**ED25519_JWK, "x": encode_b64url(b"\1" * 31)}, id="31 octets"),
    pytest.param(jwk_of("P-384"), {**jwk_of("P-384"), "crv": "P-521"}, id="P-384 as P-521"),
    pytest.param(jwk_of("P-521"), {**jwk_of("P-521"), "x": encode_b64url(b"\1" * 65)}, id="x of P-521 with 65 octets"),
    pytest.param(jwk_of("RSA-2048"), jwk_of("RSA of ROCA"), id="RSA modulus with the ROCA fingerprint"),
    pytest.param(ED25519_JWK, jwk_of("Ed448"), id="Ed448"),
    pytest.param(jwk_of("RSA-2048"), jwk_of("RSA-1024"), id="RSA of 1024 bits"),
]


@pytest.mark.parametrize(("accepted", "ignored"), READ_PAIRS)
def test_parse_jwks_key_with_one_fault_is_ignored(accepted: dict[str, Any], ignored: dict[str, Any]) -> None:
    assert len(parsed(accepted)) == 1
    assert parsed(ignored) == ()
    assert len(parsed(ignored, accepted)) == 1


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"n": encode_b64url(b"\xff" * 255 + b"\xfe")}, id="even modulus"),
        pytest.param({"n": encode_b64url(b"\xff" * 2049)}, id="modulus over 16384 bits"),
        pytest.param({"e": "AQ"}, id="exponent 1"),
        pytest.param({"e": "AA"}, id="exponent 0"),
        pytest.param({"e": "Ag"}, id="exponent 2"),
        pytest.param({"e": encode_b64url(b"\x01" * 9)}, id="exponent of 65 bits"),
        pytest.param({"e": 65537}, id="exponent as a number"),
        pytest.param({"n": ""}, id="empty modulus"),
    ],
)
def test_parse_jwks_malformed_rsa_key_is_ignored(jwks: dict[str, Any], change: dict[str, Any]) -> None:
    usual = jwks["keys"][0]
    assert len(parsed(usual)) == 1
    assert parsed({**usual, **change}) == ()


def test_parse_jwks_rsa_key_with_an_exponent_of_64_bits_is_accepted(jwks: dict[str, Any]) -> None:
    assert len(parsed({**jwks["keys"][0], "e": encode_b64url(b"\xff" * 8)})) == 1


@pytest.mark.parametrize(
    ("accepted", "refused"),
    [
        pytest.param(b'{"keys":[]}', b'{"keys":{}}', id="keys is an object"),
        pytest.param(b'{"keys":[]}', b'{"keys":null}', id="keys is null"),
        pytest.param(b'{"keys":[]}', b"{}", id="no keys"),
        pytest.param(b'{"keys":[]}', b"[]", id="a list"),
        pytest.param(b'{"keys":[{}]}', b'{"keys":["x"]}', id="a key is a string"),
        pytest.param(b'{"keys":[{}]}', b'{"keys":[null]}', id="a key is null"),
        pytest.param(b'{"keys":[]}', b'{"keys":[],"keys":[]}', id="keys twice"),
        pytest.param(b'{"keys":[{}]}', b'{"keys":[{"kid":"1","kid":"2"}]}', id="kid twice in one key"),
        pytest.param(b'{"keys":[]}', b"<html>", id="HTML"),
        pytest.param(b'{"keys":[]}', b"", id="empty"),
    ],
)
def test_parse_jwks_document_with_one_fault_is_metadata_invalid(accepted: bytes, refused: bytes) -> None:
    assert parse_jwks(accepted).keys == ()
    with raises(Code.METADATA_INVALID) as caught:
        parse_jwks(refused)
    assert (caught.value.code, caught.value.__context__) == ("metadata_invalid", None)


def test_parse_jwks_private_members_are_dropped(private_keys: dict[str, Any]) -> None:
    private = ECAlgorithm.to_jwk(private_keys["p256"], as_dict=True)
    private.pop("key_ops", None)
    (key,) = parsed(private)
    assert "d" in private
    assert not hasattr(key.public_key, "private_numbers")
    assert private["d"] not in repr(key)


EC = {**ES256_JWK, "kid": "1"}
FITTING_PAIRS = [
    pytest.param([EC], "1", [EC], "2", id="another kid"),
    pytest.param([EC], "1", [ES256_JWK], "1", id="a key without kid for a token with one"),
    pytest.param([{**EC, "alg": "ES256"}], "1", [{**EC, "alg": "ES384"}], "1", id="alg of the key"),
    pytest.param([{**EC, "use": "sig"}], "1", [{**EC, "use": "enc"}], "1", id="use"),
    pytest.param([{**EC, "key_ops": ["verify"]}], "1", [{**EC, "key_ops": ["sign"]}], "1", id="key_ops"),
    pytest.param([{**EC, "key_ops": ["sign", "verify"]}], "1", [{**EC, "key_ops": []}], "1", id="key_ops empty"),
    pytest.param([EC], "1", [{**ED25519_JWK, "kid": "1"}], "1", id="kty"),
    pytest.param([EC], "1", [{**jwk_of("P-384"), "kid": "1"}], "1", id="curve"),
    pytest.param([EC], None, [EC, {**EC, "kid": "2"}], None, id="two fit a token without kid"),
    pytest.param([EC, {**EC, "kid": "2", "use": "enc"}], None, [], None, id="none fits"),
    pytest.param([EC, {**EC, "kid": "2"}], "2", [EC, EC], "1", id="one kid, two keys"),
    pytest.param([EC, {**ED25519_JWK, "kid": "1"}], "1", [{**ED25519_JWK, "kid": "1"}], "1", id="one kid, two kty"),
    pytest.param([EC], "1", [EC], "", id="empty kid"),
]


@pytest.mark.parametrize(("accepted", "kid", "refused", "refused_kid"), FITTING_PAIRS)
def test_get_key_one_mismatch_is_key_not_found(
    accepted: list[Any], kid: str | None, refused: list[Any], refused_kid: str | None
) -> None:
    assert JSONWebKeySet(keys=parsed(*accepted)).get_key(kid=kid, alg="ES256").can_verify("ES256")
    with raises(KeyNotFound) as caught:
        JSONWebKeySet(keys=parsed(*refused)).get_key(kid=refused_kid, alg="ES256")
    assert caught.value.code == "key_not_found"


@pytest.mark.parametrize("alg", ["none", "HS256", "ES384", "EdDSA", "Ed25519", "RS256", ""])
def test_get_key_alg_without_a_key_is_key_not_found(alg: str) -> None:
    keys = JSONWebKeySet(keys=parsed(EC))
    assert keys.get_key(kid="1", alg="ES256").kid == "1"
    with raises(KeyNotFound):
        keys.get_key(kid="1", alg=alg)


def test_verify_example_of_rfc_7515_a3_is_valid_only_for_its_bytes() -> None:
    (key,) = parsed(ES256_JWK)
    jws = parse_compact_jws(ES256_JWS)
    assert key.verify("ES256", jws.signing_input, jws.signature)
    assert not key.verify("ES256", jws.signing_input + b"x", jws.signature)
    assert not key.verify("ES256", jws.signing_input, jws.signature[:-1])
    assert not key.verify("ES256", jws.signing_input, b"\0" * 64)
    assert not key.verify("EdDSA", jws.signing_input, jws.signature)
    assert not key.verify("none", jws.signing_input, b"")


def test_verify_example_of_rfc_8037_a4_is_valid_only_for_its_bytes() -> None:
    (key,) = parsed(ED25519_JWK)
    signature = parse_compact_jws(f"eyJhbGciOiJFZERTQSJ9.e30.{ED25519_SIGNATURE}").signature
    assert key.verify("EdDSA", ED25519_INPUT, signature)
    assert not key.verify("EdDSA", ED25519_INPUT[:-1], signature)
    assert not key.verify("EdDSA", ED25519_INPUT, signature[:63])
    assert not key.verify("ES256", ED25519_INPUT, signature)


@pytest.mark.parametrize(
    ("declared", "alg", "verifies"),
    [
        (None, "Ed25519", True),
        (None, "EdDSA", True),
        ("EdDSA", "Ed25519", True),
        ("Ed25519", "EdDSA", True),
        ("ES256", "Ed25519", False),
        ("Ed448", "EdDSA", False),
    ],
)
def test_key_of_either_name_of_ed25519_verifies_both(declared: str | None, alg: str, verifies: bool) -> None:
    """RFC 9864 2.2."""
    (key,) = parsed({**ED25519_JWK, **({"alg": declared} if declared else {})})
    signature = parse_compact_jws(f"eyJhbGciOiJFZERTQSJ9.e30.{ED25519_SIGNATURE}").signature
    assert key.verify(alg, ED25519_INPUT, signature) is verifies


ALGS = ("PS256", "PS384", "PS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA")


@pytest.mark.parametrize("alg", ALGS)
def test_verify_signature_is_valid_only_for_its_alg(keys: JSONWebKeySet, sign: Callable[..., str], alg: str) -> None:
    jws = parse_compact_jws(sign({"sub": "x"}, alg=alg))
    key = keys.get_key(kid=jws.kid, alg=alg)
    assert key.verify(alg, jws.signing_input, jws.signature)
    assert not any(key.verify(other, jws.signing_input, jws.signature) for other in ALGS if other != alg)
    assert not key.verify(alg, jws.signing_input, b"")
    assert not key.verify(alg, jws.signing_input, jws.signature + b"\0")


@pytest.mark.parametrize("kid", ["rsa", "p256", "p384", "p521", "ed25519"])
@settings(max_examples=30)
@given(signature=st.binary(max_size=300), signing_input=st.binary(max_size=10))
def test_verify_any_signature_is_false(keys: JSONWebKeySet, kid: str, signature: bytes, signing_input: bytes) -> None:
    (key,) = (key for key in keys.keys if key.kid == kid)
    assert not any(key.verify(alg, signing_input, signature) for alg in ALGS)


@given(
    base=st.sampled_from([0, 1, 2, 3, 4]),
    name=st.sampled_from(["kty", "kid", "alg", "use", "key_ops", "crv", "x", "y", "n", "e"]),
    value=ANY_JSON | st.binary(min_size=1, max_size=300).map(encode_b64url),
)
def test_parse_jwks_any_member_gives_a_usable_key_or_none(
    jwks: dict[str, Any], base: int, name: str, value: Any
) -> None:
    keys = parsed({**jwks["keys"][base], name: value})
    assert len(keys) <= 1
    assert not any(key.verify(alg, b"x", b"y" * 64) for key in keys for alg in ALGS)


@given(ANY_JSON)
def test_parse_jwks_any_json_gives_a_key_set_or_metadata_invalid(value: Any) -> None:
    for document in (value, {"keys": value}, {"keys": [value]}):
        try:
            result: object = parse_jwks(json.dumps(document).encode())
        except MetadataError as error:
            result = error.code
        assert isinstance(result, JSONWebKeySet) or result is Code.METADATA_INVALID
