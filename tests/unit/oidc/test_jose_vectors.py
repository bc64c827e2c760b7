"""Examples of the specifications: RFC 7518 appendix C, RFC 7520 4.2, 4.3 and 5.4. RFC 7515 and 8037: test_jwks.py.

RFC 9864 has no example of a signature; its Ed25519 is the algorithm of RFC 8037 appendix A.
"""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from jwcrypto import jwk

from django_phi_oidc.config.client_keys import parse_client_keys
from django_phi_oidc.config.encryption_algorithms import ResponseEncryption
from django_phi_oidc.errors import Code
from django_phi_oidc.oidc.jose import decode_b64url, encode_b64url
from django_phi_oidc.oidc.jwe import get_signed_token
from django_phi_oidc.oidc.jwks import parse_jwks
from tests.support.error_codes import raises

JWS = "eyJhbGciOiJFUzI1NiJ9.e30.c2ln"
PAYLOAD = (
    "It\u2019s a dangerous business, Frodo, going out your door. You step onto the road, and if you don't keep your"
    " feet, there\u2019s no knowing where you might be swept off to."
)
SIGNATURES: dict[str, tuple[dict[str, str], str]] = {
    "PS384": (
        {
            "kty": "RSA",
            "n": (
                "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRB"
                "SFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD"
                "1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_"
                "qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw"
            ),
            "e": "AQAB",
        },
        "cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OL"
        "PpcbUrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vdz0TTrxUeT3lm8d9shn"
        "r2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6"
        "oD4ifKo8DYM-X72Eaw",
    ),
    "ES512": (
        {
            "kty": "EC",
            "crv": "P-521",
            "x": "AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt",
            "y": "AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1",
        },
        "AE_R_YZCChjn4791jSQCrdPZCNYqHXCTZH0-JZGYNlaAjP2kqaluUIIUnC9qvbu9Plon7KRTzoNEuT4Va2cmL1eJAQy3mtPBu_u_sDDyYjnA"
        "MDxXPn7XrT0lw-kvAD890jl8e2puQens_IEKBpHABlsbEPX6sFY8OcGDqoRuBomu9xQ2",
    ),
}


@pytest.mark.parametrize("alg", SIGNATURES)
def test_signature_of_rfc_7520_is_valid_for_its_bytes_and_alg(alg: str) -> None:
    """RFC 7520 4.2, 4.3."""
    public_jwk, signature_b64url = SIGNATURES[alg]
    (key,) = parse_jwks(json.dumps({"keys": [public_jwk]}).encode()).keys
    header = f'{{"alg":"{alg}","kid":"bilbo.baggins@hobbiton.example"}}'
    signing_input = f"{encode_b64url(header.encode())}.{encode_b64url(PAYLOAD.encode())}".encode()
    signature = decode_b64url(signature_b64url)
    assert key.verify(alg, signing_input, signature)
    assert not key.verify(alg, signing_input + b"x", signature)
    for other in ("PS256", "PS512", "RS384", "ES256", "ES384"):
        assert not key.verify(other, signing_input, signature)


def decrypt(header: dict[str, Any], *, encrypted_key: str, cek: bytes, private_jwk: dict[str, str]) -> str:
    """Return what get_signed_token returns for JWS, encrypted with the key that the specification computes."""
    pem = jwk.JWK(**private_jwk).export_to_pem(private_key=True, password=None).decode()
    keys = parse_client_keys("client_keys", {"key": pem, "kid": "k", "use": "enc"})
    protected, iv = encode_b64url(json.dumps({**header, "kid": "k", "cty": "JWT"}).encode()), b"\1" * 12
    sealed = AESGCM(cek).encrypt(iv, JWS.encode(), protected.encode())
    rest = (encode_b64url(part) for part in (iv, sealed[:-16], sealed[-16:]))
    encryption = ResponseEncryption((header["alg"],), (header["enc"],), keys)
    return get_signed_token(".".join([protected, encrypted_key, *rest]), encryption=encryption)


ALICE = {
    "kty": "EC",
    "crv": "P-256",
    "x": "gI0GAILBdu7T53akrFmMyGcsF3n5dO7MmwNBHKW5SV0",
    "y": "SLW_xSffzlPWrHEVI30DHM_4egVwt3NQqeUD7nMFpps",
}
BOB = {
    "kty": "EC",
    "crv": "P-256",
    "x": "weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ",
    "y": "e8lnCO-AlStT-NJVX-crhB7QRYhiix03illJOVAOyck",
    "d": "VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw",
}


def test_agreed_key_of_rfc_7518_appendix_c_decrypts() -> None:
    header = {"alg": "ECDH-ES", "enc": "A128GCM", "apu": "QWxpY2U", "apv": "Qm9i", "epk": ALICE}
    agreed = {"encrypted_key": "", "cek": decode_b64url("VqqN6vgjbSBcIijNcacQGg"), "private_jwk": BOB}
    assert decrypt(header, **agreed) == JWS
    for changes in ({"apu": "Qm9i"}, {"apv": "QWxpY2U"}, {"epk": {**BOB, "d": None}}):
        with raises(Code.DECRYPTION_FAILED):
            decrypt({**header, **changes}, **agreed)


def test_wrapped_key_of_rfc_7520_decrypts() -> None:
    """RFC 7520 5.4: ECDH-ES+A128KW on P-384."""
    epk = {
        "kty": "EC",
        "crv": "P-384",
        "x": "uBo4kHPw6kbjx5l0xowrd_oYzBmaz-GKFZu4xAFFkbYiWgutEK6iuEDsQ6wNdNg3",
        "y": "sp3p5SGhZVC2faXumI-e9JU2Mo8KpoYrFDr5yPNVtW4PgEwZOyQTA-JdaY8tb7E0",
    }
    private_jwk = {
        "kty": "EC",
        "crv": "P-384",
        "x": "YU4rRUzdmVqmRtWOs2OpDE_T5fsNIodcG8G5FWPrTPMyxpzsSOGaQLpe2FpxBmu2",
        "y": "A8-yxCHxkfBz3hKZfI1jUYMjUhsEveZ9THuwFjH2sCNdtksRJU7D5-SkgaFL1ETP",
        "d": "iTx2pk7wW-GqJkHcEkFQb2EFyYcO7RugmaW3mRrQVAOUiPommT0IdnYK2xDlZh-j",
    }
    header = {"alg": "ECDH-ES+A128KW", "enc": "A128GCM", "epk": epk}
    wrapped = {"encrypted_key": "0DJjBXri_kBcC46IkU5_Jk9BqaQeHdv2", "cek": decode_b64url("Nou2ueKlP70ZXDbq9UrRwg")}
    assert decrypt(header, **wrapped, private_jwk=private_jwk) == JWS
    another = ec.generate_private_key(ec.SECP384R1())
    with raises(Code.DECRYPTION_FAILED):
        decrypt(header, **wrapped, private_jwk=json.loads(jwk.JWK.from_pyca(another).export()))
