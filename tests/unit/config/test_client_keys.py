"""The client's keys: accepted formats, kid, signatures. Spec: RFC 7517, 7638, 8037."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
)

from django_phi_oidc.config.client_keys import ALGS_BY_KTY, ClientKey, parse_client_keys
from django_phi_oidc.errors import DeclarationInvalid
from tests.support.client_keys import encode_private_key

pytestmark = pytest.mark.sqlite
RSA, EC, OKP = (
    rsa.generate_private_key(65537, 2048),
    ec.generate_private_key(ec.SECP256R1()),
    ed25519.Ed25519PrivateKey.generate(),
)
KEYS = {"RSA": RSA, "EC": EC, "OKP": OKP}


def one(source: Any) -> ClientKey:
    (key,) = parse_client_keys("client_keys", source)
    return key


def test_kid_is_the_thumbprint_of_rfc_8037() -> None:
    """RFC 8037 A.1 (the key), A.3 (its thumbprint)."""
    d = base64.urlsafe_b64decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    key = one(encode_private_key(ed25519.Ed25519PrivateKey.from_private_bytes(d)))
    assert key.kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    assert key.build_public_jwk() == {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "kid": key.kid,
        "use": "sig",
    }


@pytest.mark.parametrize(("kty", "members"), [("RSA", "e kty n"), ("EC", "crv kty x y"), ("OKP", "crv kty x")])
def test_kid_is_the_hash_of_the_required_members(kty: str, members: str) -> None:
    """RFC 7638 3.1 to 3.3."""
    key = one(encode_private_key(KEYS[kty]))
    jwk = key.build_public_jwk("alg")
    assert set(jwk) == {*members.split(), "kid", "use", "alg"}
    canonical = "{" + ",".join(f'"{name}":"{jwk[name]}"' for name in sorted(members.split())) + "}"
    digest = hashlib.sha256(canonical.encode()).digest()
    assert key.kid == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


@pytest.mark.parametrize(("kty", "alg"), [(kty, alg) for kty, algs in ALGS_BY_KTY.items() for alg in algs])
def test_signature_verifies_with_the_published_key_only(kty: str, alg: str) -> None:
    key = one(encode_private_key(KEYS[kty]))
    header = base64.urlsafe_b64encode(json.dumps({"alg": alg}).encode()).rstrip(b"=").decode()
    signing_input = f"{header}.e30"
    signature = base64.urlsafe_b64encode(key.sign(alg, signing_input.encode())).rstrip(b"=").decode()
    token = f"{signing_input}.{signature}"
    assert jwt.decode(token, jwt.PyJWK(key.build_public_jwk(alg)), algorithms=[alg]) == {}
    other = {"RSA": rsa.generate_private_key(65537, 2048), "EC": ec.generate_private_key(ec.SECP256R1())}
    another = one(encode_private_key(other.get(kty) or ed25519.Ed25519PrivateKey.generate()))
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token, jwt.PyJWK(another.build_public_jwk(alg)), algorithms=[alg])


@pytest.mark.parametrize("kty", KEYS)
def test_sign_by_an_alg_of_another_kty_raises(kty: str) -> None:
    key = one(encode_private_key(KEYS[kty]))
    for alg in {"PS256", "RS256", "ES256", "EdDSA", "none", "HS256"} - set(ALGS_BY_KTY[kty]):
        with pytest.raises(ValueError, match=kty):
            key.sign(alg, b"x.y")


def test_text_path_and_list_give_the_same_keys_in_order(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text(encode_private_key(EC))
    rsa_text = encode_private_key(RSA, private_format=PrivateFormat.TraditionalOpenSSL)
    keys = parse_client_keys("client_keys", [rsa_text, path])
    assert [key.kty for key in keys] == ["RSA", "EC"]
    assert keys == (one(encode_private_key(RSA)), one(path))
    assert parse_client_keys("client_keys", []) == ()


def encrypted(key: Any) -> str:
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")).decode())


BAD = {
    "encrypted": lambda: encrypted(EC),
    "public": lambda: EC.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
    "RSA of 1024 bits": lambda: encode_private_key(rsa.generate_private_key(65537, 1024)),
    "P-384": lambda: encode_private_key(ec.generate_private_key(ec.SECP384R1())),
    "Ed448": lambda: encode_private_key(ed448.Ed448PrivateKey.generate()),
    "truncated": lambda: encode_private_key(EC)[:100],
    "a path as text": lambda: "/etc/keys/portal.pem",
    "not ASCII": lambda: "schlüssel",
    "empty": lambda: "",
    "a number": lambda: 5,
    "bytes": lambda: encode_private_key(EC).encode(),
    "a missing file": lambda: Path("/nonexistent/portal.pem"),
    "a directory": lambda: Path("/"),
    "one key twice": lambda: [encode_private_key(EC), encode_private_key(EC)],
    "a dictionary": lambda: {"first": encode_private_key(EC)},
    "a valid and an invalid key": lambda: [encode_private_key(EC), "x"],
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
def test_invalid_key_is_refused_without_its_content(make: Any) -> None:
    assert one(encode_private_key(EC)).kty == "EC"
    source = make()
    with pytest.raises(DeclarationInvalid, match=r"PROVIDERS\['default'\]\['client_keys'\]") as refused:
        parse_client_keys("PROVIDERS['default']['client_keys']", source)
    message = str(refused.value)
    assert "PRIVATE" not in message
    assert "nonexistent" not in message
    assert "portal.pem" not in message


def test_repr_contains_nothing_private() -> None:
    shown = repr(one(encode_private_key(RSA)))
    assert str(RSA.private_numbers().d) not in shown
    assert "private" not in shown
    assert not {"d", "p", "q", "dp", "dq", "qi"} & set(one(encode_private_key(RSA)).build_public_jwk())
