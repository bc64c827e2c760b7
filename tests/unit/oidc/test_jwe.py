"""Which encrypted tokens are decrypted: each refusal is next to an accepted token that differs in one thing.

Spec: RFC 7516, RFC 7518 4 and 5, RFC 7519 5.2. The tokens are made by jwcrypto, which this package does not use.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from jwcrypto import jwe, jwk

from django_phi_oidc.config.client_keys import parse_client_keys
from django_phi_oidc.config.encryption_algorithms import (
    CONTENT_ENCRYPTION_ALGS,
    KTY_BY_KEY_MANAGEMENT_ALG,
    ResponseEncryption,
)
from django_phi_oidc.errors import Code, IDTokenError
from django_phi_oidc.oidc.jose import decode_b64url, encode_b64url
from django_phi_oidc.oidc.jwe import get_signed_token
from tests.support.client_keys import encode_private_key
from tests.support.error_codes import raises

JWS = "eyJhbGciOiJFUzI1NiJ9.e30.c2ln"
PRIVATE_KEYS: dict[str, Any] = {
    "rsa": rsa.generate_private_key(65537, 2048),
    "rsa-3072": rsa.generate_private_key(65537, 3072),
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "p521": ec.generate_private_key(ec.SECP521R1()),
}
KEYS = parse_client_keys(
    "client_keys",
    [{"key": encode_private_key(key), "kid": kid, "use": "enc"} for kid, key in PRIVATE_KEYS.items()],
)
KEYS_BY_KID = {key.kid: key for key in KEYS}
ALGS, ENCS = tuple(KTY_BY_KEY_MANAGEMENT_ALG), CONTENT_ENCRYPTION_ALGS
ANY = ResponseEncryption(ALGS, ENCS, KEYS)
HEADER = {"alg": "ECDH-ES", "enc": "A256GCM", "cty": "JWT", "kid": "p256"}
RSA_HEADER = {**HEADER, "alg": "RSA-OAEP-256", "kid": "rsa"}
WRAPPED_HEADER = {**HEADER, "alg": "ECDH-ES+A256KW"}
ABSENT = object()


def encrypt(header: dict[str, Any] = HEADER, *, plaintext: str = JWS, key: Any = None) -> str:
    """Return a JWE by jwcrypto. key: by default that of the kid."""
    header = {name: value for name, value in header.items() if value is not ABSENT}
    private_key = key or PRIVATE_KEYS[header.get("kid", "p256")]
    token = jwe.JWE(plaintext.encode(), json.dumps(header), algs=[header["alg"], header["enc"]])
    token.add_recipient(jwk.JWK.from_pyca(private_key.public_key()))
    return str(token.serialize(compact=True))


def with_header(token: str, **changes: Any) -> str:
    """Return the token with another header, which its tag does not cover."""
    header, rest = token.split(".", 1)
    members = {**json.loads(decode_b64url(header)), **changes}
    members = {name: value for name, value in members.items() if value is not ABSENT}
    return f"{encode_b64url(json.dumps(members).encode())}.{rest}"


def with_part(token: str, index: int, change: Callable[[bytes], bytes]) -> str:
    """Return the token with another value of one part."""
    parts = token.split(".")
    parts[index] = encode_b64url(change(decode_b64url(parts[index]) if parts[index] else b""))
    return ".".join(parts)


def flip(data: bytes) -> bytes:
    return bytes([data[0] ^ 1, *data[1:]])


def epk_of(curve: ec.EllipticCurve, **changes: Any) -> dict[str, Any]:
    return {**json.loads(jwk.JWK.from_pyca(ec.generate_private_key(curve)).export_public()), **changes}


@pytest.mark.parametrize("enc", ENCS)
@pytest.mark.parametrize("alg", ALGS)
@pytest.mark.parametrize("kid", PRIVATE_KEYS)
def test_token_to_each_key_is_decrypted_by_the_algorithms_of_its_type(alg: str, enc: str, kid: str) -> None:
    if KTY_BY_KEY_MANAGEMENT_ALG[alg] != ("RSA" if kid.startswith("rsa") else "EC"):
        with raises(Code.DECRYPTION_FAILED):
            get_signed_token(with_header(encrypt(), alg=alg, enc=enc, kid=kid), encryption=ANY)
        return
    token = encrypt({"alg": alg, "enc": enc, "cty": "JWT", "kid": kid})
    assert get_signed_token(token, encryption=ResponseEncryption((alg,), (enc,), KEYS)) == JWS
    for declared in (
        ResponseEncryption(tuple(other for other in ALGS if other != alg), ENCS, KEYS),
        ResponseEncryption(ALGS, tuple(other for other in ENCS if other != enc), KEYS),
    ):
        with raises(Code.ALG_NOT_ALLOWED):
            get_signed_token(token, encryption=declared)


def test_token_is_encrypted_exactly_if_that_is_declared() -> None:
    """RFC 7516 9 distinguishes JWS and JWE; OIDC Core 3.1.3.7 (1)."""
    undeclared = ResponseEncryption((), ENCS, KEYS)
    assert get_signed_token(encrypt(), encryption=ANY) == get_signed_token(JWS, encryption=undeclared) == JWS
    with raises(Code.ENCRYPTION_UNDECLARED):
        get_signed_token(encrypt(), encryption=undeclared)
    with raises(Code.ENCRYPTION_MISSING):
        get_signed_token(JWS, encryption=ANY)
    for broken in ("", "x", "a.b", "a.b.c.d", "a.b.c.d.e.f"):
        with raises(Code.ENCRYPTION_MISSING):
            get_signed_token(broken, encryption=ANY)


Pairs = dict[str, tuple[str, str]]
"""An accepted token, and a refused one."""
TOKEN_MALFORMED: Pairs = {
    "header is not JSON": (encrypt(), with_part(encrypt(), 0, lambda data: data[:-1])),
    "header with padding": (encrypt(), f"{encrypt().partition('.')[0]}=.a.b.c.d"),
    "member twice": (encrypt(), with_part(encrypt(), 0, lambda data: data[:-1] + b',"alg":"ECDH-ES"}')),
    "no cty": (encrypt(), encrypt({**HEADER, "cty": ABSENT})),
    "cty another": (encrypt({**HEADER, "cty": "jwt"}), encrypt({**HEADER, "cty": "json"})),
    "no enc": (encrypt(), with_header(encrypt(), enc=ABSENT)),
    "alg a list": (encrypt(), with_header(encrypt(), alg=["ECDH-ES"])),
    "kid a number": (encrypt(), with_header(encrypt(), kid=1)),
    "crit": (encrypt(), with_header(encrypt(), crit=["exp"])),
    "compressed": (encrypt(), encrypt({**HEADER, "zip": "DEF"})),
    "p2c": (encrypt(), with_header(encrypt(), p2c=10**9, p2s="c2FsdA")),
    "header too long": (encrypt({**HEADER, "note": "x" * 2500}), encrypt({**HEADER, "note": "x" * 3000})),
    "64 KiB": (encrypt(plaintext=f"a.{'x' * 48000}.b"), encrypt(plaintext=f"a.{'x' * 50000}.b")),
    "not ASCII": (encrypt(), encrypt()[:-1] + "é"),
    "claims without a signature": (encrypt(), encrypt(plaintext='{"sub":"x"}')),
    "a JWE in the JWE": (encrypt(), encrypt(plaintext=encrypt())),
}
ALG_NOT_ALLOWED: Pairs = {
    "RSA1_5": (encrypt(RSA_HEADER), encrypt({**RSA_HEADER, "alg": "RSA1_5"})),
    "RSA-OAEP with SHA-1": (encrypt(RSA_HEADER), encrypt({**RSA_HEADER, "alg": "RSA-OAEP"})),
    "dir": (encrypt(), with_header(encrypt(), alg="dir")),
    "PBES2": (encrypt(), with_header(encrypt(), alg="PBES2-HS256+A128KW")),
    "A128CBC-HS256": (encrypt(), encrypt({**HEADER, "enc": "A128CBC-HS256"})),
    "enc as alg": (encrypt(), with_header(encrypt(), alg="A256GCM")),
}
DECRYPTION_FAILED: Pairs = {
    **{
        f"A256CBC-HS512, part {part} too short": (
            encrypt({**WRAPPED_HEADER, "enc": "A256CBC-HS512"}),
            with_part(encrypt({**WRAPPED_HEADER, "enc": "A256CBC-HS512"}), part, lambda data: data[:-1]),
        )
        for part in (1, 2, 3, 4)
    },
    "unknown kid": (encrypt(), encrypt({**HEADER, "kid": "x"}, key=PRIVATE_KEYS["p256"])),
    "two keys fit": (encrypt(), encrypt({**HEADER, "kid": ABSENT})),
    "another key": (encrypt(), encrypt(HEADER, key=ec.generate_private_key(ec.SECP256R1()))),
    "another RSA key": (encrypt(RSA_HEADER), encrypt(RSA_HEADER, key=rsa.generate_private_key(65537, 2048))),
    "RSA key of another length": (encrypt(RSA_HEADER), encrypt(RSA_HEADER, key=PRIVATE_KEYS["rsa-3072"])),
    "another key, wrapped": (
        encrypt(WRAPPED_HEADER),
        encrypt(WRAPPED_HEADER, key=ec.generate_private_key(ec.SECP256R1())),
    ),
    "header changed": (encrypt(), with_header(encrypt(), typ="JWT")),
    "enc changed": (encrypt(RSA_HEADER), with_header(encrypt(RSA_HEADER), enc="A128GCM")),
    "alg changed": (encrypt(WRAPPED_HEADER), with_header(encrypt(WRAPPED_HEADER), alg="ECDH-ES")),
    "encrypted key where none may be": (encrypt(), with_part(encrypt(), 1, lambda _: b"x" * 40)),
    "encrypted key changed": (encrypt(WRAPPED_HEADER), with_part(encrypt(WRAPPED_HEADER), 1, flip)),
    "RSA encrypted key changed": (encrypt(RSA_HEADER), with_part(encrypt(RSA_HEADER), 1, flip)),
    "IV changed": (encrypt(), with_part(encrypt(), 2, flip)),
    "IV of 128 bits": (encrypt(), with_part(encrypt(), 2, lambda iv: iv + b"\0" * 4)),
    "ciphertext changed": (encrypt(), with_part(encrypt(), 3, flip)),
    "ciphertext empty": (encrypt(), with_part(encrypt(), 3, lambda _: b"")),
    "tag changed": (encrypt(), with_part(encrypt(), 4, flip)),
    "tag shortened": (encrypt(), with_part(encrypt(), 4, lambda tag: tag[:12])),
    "tag with padding": (encrypt(), encrypt() + "=="),
    "no epk": (encrypt(), with_header(encrypt(), epk=ABSENT)),
    "epk a string": (encrypt(), with_header(encrypt(), epk="x")),
    "epk on another curve": (encrypt(), with_header(encrypt(), epk=epk_of(ec.SECP384R1()))),
    "epk off the curve": (encrypt(), with_header(encrypt(), epk=epk_of(ec.SECP256R1(), x=encode_b64url(b"\1" * 32)))),
    "epk with a private member": (encrypt(), with_header(encrypt(), epk=epk_of(ec.SECP256R1(), d="AQ"))),
    "epk of another kty": (encrypt(), with_header(encrypt(), epk=epk_of(ec.SECP256R1(), kty="OKP"))),
    "apu a number": (encrypt({**HEADER, "apu": "QQ", "apv": "Qg"}), with_header(encrypt(), apu=1)),
    "apv with padding": (encrypt({**HEADER, "apv": "Qg"}), with_header(encrypt(), apv="Qg==")),
}
REFUSED = {
    f"{code}: {fault}": (*pair, code)
    for code, pairs in (
        (Code.TOKEN_MALFORMED, TOKEN_MALFORMED),
        (Code.ALG_NOT_ALLOWED, ALG_NOT_ALLOWED),
        (Code.DECRYPTION_FAILED, DECRYPTION_FAILED),
    )
    for fault, pair in pairs.items()
}


@pytest.mark.parametrize(("accepted", "refused", "code"), REFUSED.values(), ids=REFUSED)
def test_token_with_one_fault_is_refused_without_the_reason(accepted: str, refused: str, code: Code) -> None:
    assert get_signed_token(accepted, encryption=ANY).count(".") == 2
    with raises(code) as caught:
        get_signed_token(refused, encryption=ANY)
    assert (caught.value.code, caught.value.__context__, str(caught.value)) == (code, None, code.description)


def test_token_without_kid_needs_a_single_key_of_its_type() -> None:
    token = encrypt({**HEADER, "kid": ABSENT})
    single = tuple(KEYS_BY_KID[kid] for kid in ("rsa", "p256"))
    assert get_signed_token(token, encryption=ResponseEncryption(ALGS, ENCS, single)) == JWS
    both = tuple(KEYS_BY_KID[kid] for kid in ("p384", "p256"))
    with raises(Code.DECRYPTION_FAILED):
        get_signed_token(token, encryption=ResponseEncryption(ALGS, ENCS, both))


@settings(max_examples=100)
@given(st.lists(st.binary(max_size=60), min_size=4, max_size=4), st.sampled_from([HEADER, RSA_HEADER, WRAPPED_HEADER]))
def test_any_parts_are_refused(parts: list[bytes], header: dict[str, Any]) -> None:
    epk = {"epk": epk_of(ec.SECP256R1())} if header is not RSA_HEADER else {}
    pieces = [json.dumps({**header, **epk}).encode(), *parts]
    with pytest.raises(IDTokenError):
        get_signed_token(".".join(encode_b64url(piece) for piece in pieces), encryption=ANY)


@settings(max_examples=100)
@given(
    name=st.sampled_from(["alg", "enc", "cty", "kid", "typ", "epk", "apu", "apv", "zip", "jwk", "jku", "x5c", "x"]),
    value=st.recursive(
        st.none() | st.integers() | st.sampled_from([*ALGS, *ENCS, "JWT", "p256"]),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["kty", "crv", "x", "y"]), inner),
    ),
)
def test_any_header_member_is_refused_or_has_no_effect(name: str, value: Any) -> None:
    try:
        result = get_signed_token(with_header(encrypt(), **{name: value}), encryption=ANY)
    except IDTokenError as error:
        result = error.code
    assert result in (JWS, Code.TOKEN_MALFORMED, Code.ALG_NOT_ALLOWED, Code.DECRYPTION_FAILED)
