"""The client's keys: accepted formats, kid, signatures. Spec: RFC 7517, 7638, 8037."""

import base64
import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509 import CertificateBuilder, Name, NameAttribute, load_der_x509_certificate
from cryptography.x509.oid import NameOID

from django_phi_oidc.config.client_keys import ClientKey, parse_client_keys
from django_phi_oidc.errors import DeclarationInvalid
from tests.support.client_keys import encode_private_key
from tests.support.roca import create_roca_key

pytestmark = pytest.mark.sqlite
CREATE = {
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}
KEYS: dict[str, Any] = {name: create() for name, create in CREATE.items()}
RSA, EC, OKP = KEYS["RSA"], KEYS["P-256"], KEYS["Ed25519"]
ALGS = {
    "RSA": ("PS256", "PS384", "PS512", "RS256", "RS384", "RS512"),
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "Ed25519": ("EdDSA", "Ed25519"),
}
VALID_FROM = datetime(2026, 1, 1, tzinfo=UTC)
PATH = "PROVIDERS['default']['client_keys']"


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


EC_MEMBERS = "crv kty x y"


@pytest.mark.parametrize(
    ("name", "members"),
    [("RSA", "e kty n"), ("P-256", EC_MEMBERS), ("P-384", EC_MEMBERS), ("P-521", EC_MEMBERS), ("Ed25519", "crv kty x")],
)
def test_kid_is_the_hash_of_the_required_members(name: str, members: str) -> None:
    """RFC 7638 3.1 to 3.3."""
    key = one(encode_private_key(KEYS[name]))
    jwk = key.build_public_jwk("alg")
    assert set(jwk) == {*members.split(), "kid", "use", "alg"}
    canonical = "{" + ",".join(f'"{name}":"{jwk[name]}"' for name in sorted(members.split())) + "}"
    digest = hashlib.sha256(canonical.encode()).digest()
    assert key.kid == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


@pytest.mark.parametrize(("name", "alg"), [(name, alg) for name, algs in ALGS.items() for alg in algs])
def test_signature_verifies_with_the_published_key_only(name: str, alg: str) -> None:
    key = one(encode_private_key(KEYS[name]))
    # PyJWT knows the algorithm by its older name only.
    oracle_alg = "EdDSA" if alg == "Ed25519" else alg
    header = base64.urlsafe_b64encode(json.dumps({"alg": oracle_alg}).encode()).rstrip(b"=").decode()
    signing_input = f"{header}.e30"
    signature = base64.urlsafe_b64encode(key.sign(alg, signing_input.encode())).rstrip(b"=").decode()
    token = f"{signing_input}.{signature}"
    assert jwt.decode(token, jwt.PyJWK(key.build_public_jwk(oracle_alg)), algorithms=[oracle_alg]) == {}
    another = one(encode_private_key(CREATE[name]()))
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token, jwt.PyJWK(another.build_public_jwk(oracle_alg)), algorithms=[oracle_alg])


@pytest.mark.parametrize("name", KEYS)
def test_key_signs_by_the_algorithms_of_its_type_only(name: str) -> None:
    key = one(encode_private_key(KEYS[name]))
    assert key.list_algs() == ALGS[name]
    for alg in {"none", "HS256", "ES256K", "Ed448", "", *(alg for algs in ALGS.values() for alg in algs)}:
        if alg not in ALGS[name]:
            with pytest.raises(ValueError, match="does not sign"):
                key.sign(alg, b"x.y")


def test_text_path_and_list_give_the_same_keys_in_order(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text(encode_private_key(EC))
    rsa_text = encode_private_key(RSA, private_format=PrivateFormat.TraditionalOpenSSL)
    keys = parse_client_keys("client_keys", [rsa_text, path])
    assert [key.list_algs()[0] for key in keys] == ["PS256", "ES256"]
    assert keys == (one(encode_private_key(RSA)), one(path))
    assert parse_client_keys("client_keys", []) == ()


@pytest.mark.parametrize("name", KEYS)
def test_entry_may_name_kid_use_and_certificate(name: str, tmp_path: Path) -> None:
    path = tmp_path / "certificate.pem"
    path.write_text(create_certificate(KEYS[name]) + create_certificate(EC))
    entry = {"key": encode_private_key(KEYS[name]), "kid": "portal 1", "certificate": path}
    key = one(entry)
    assert (key.kid, key.use, key.thumbprint) == ("portal 1", "sig", one(entry["key"]).kid)
    assert key.build_public_jwk()["kid"] == "portal 1"
    first, _ = key.certificate
    assert load_der_x509_certificate(first).public_key() == KEYS[name].public_key()
    assert key != one({**entry, "kid": "portal 2"})
    assert key == one({**entry, "certificate": create_certificate(KEYS[name])})


@pytest.mark.parametrize("name", ["RSA", "P-256", "P-384", "P-521"])
def test_key_for_encryption_does_not_sign(name: str) -> None:
    key = one({"key": encode_private_key(KEYS[name]), "use": "enc"})
    assert (key.list_algs(), key.build_public_jwk()["use"]) == ((), "enc")
    assert key != one(encode_private_key(KEYS[name]))
    with pytest.raises(ValueError, match="does not sign"):
        key.sign(ALGS[name][0], b"x.y")


def create_certificate(key: Any) -> str:
    """Return a self-signed certificate as PEM."""
    name = Name([NameAttribute(NameOID.COMMON_NAME, "portal")])
    builder = CertificateBuilder(name, name, key.public_key(), 1, VALID_FROM, VALID_FROM + timedelta(days=3650))
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM).decode()


def encrypted(key: Any) -> str:
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")).decode())


BAD = {
    "encrypted": lambda: encrypted(EC),
    "public": lambda: EC.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
    "RSA of 1024 bits": lambda: encode_private_key(rsa.generate_private_key(65537, 1024)),
    "RSA of the faulty generator": lambda: encode_private_key(create_roca_key()),
    "secp256k1": lambda: encode_private_key(ec.generate_private_key(ec.SECP256K1())),
    "X25519": lambda: encode_private_key(x25519.X25519PrivateKey.generate()),
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
    "a dictionary without key": lambda: {"first": encode_private_key(EC)},
    "an unknown member": lambda: {"key": encode_private_key(EC), "alg": "ES256"},
    "a key that is a number": lambda: {"key": 5},
    "an empty kid": lambda: {"key": encode_private_key(EC), "kid": ""},
    "a kid that is a number": lambda: {"key": encode_private_key(EC), "kid": 1},
    "a kid with a line break": lambda: {"key": encode_private_key(EC), "kid": "a\nb"},
    "an unknown use": lambda: {"key": encode_private_key(EC), "use": "both"},
    "Ed25519 for encryption": lambda: {"key": encode_private_key(OKP), "use": "enc"},
    "one key twice, with two kids": lambda: [encode_private_key(EC), {"key": encode_private_key(EC), "kid": "2"}],
    "one key for both uses": lambda: [encode_private_key(RSA), {"key": encode_private_key(RSA), "use": "enc"}],
    "one kid twice": lambda: [
        {"key": encode_private_key(EC), "kid": "1"},
        {"key": encode_private_key(RSA), "kid": "1", "use": "enc"},
    ],
    "a certificate of another key": lambda: {"key": encode_private_key(EC), "certificate": create_certificate(RSA)},
    "a certificate that is a key": lambda: {"key": encode_private_key(EC), "certificate": encode_private_key(EC)},
    "an empty certificate": lambda: {"key": encode_private_key(EC), "certificate": ""},
    "a missing certificate": lambda: {"key": encode_private_key(EC), "certificate": Path("/nonexistent/portal.pem")},
    "a valid and an invalid key": lambda: [encode_private_key(EC), "x"],
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
def test_invalid_key_is_refused_without_its_content(make: Any) -> None:
    assert one(encode_private_key(EC)).use == "sig"
    source = make()
    with pytest.raises(DeclarationInvalid, match=re.escape(PATH)) as refused:
        parse_client_keys(PATH, source)
    message = str(refused.value)
    assert "PRIVATE" not in message
    assert "nonexistent" not in message
    assert "portal.pem" not in message


def test_repr_contains_nothing_private() -> None:
    shown = repr(one(encode_private_key(RSA)))
    assert str(RSA.private_numbers().d) not in shown
    assert "private" not in shown
    assert not {"d", "p", "q", "dp", "dq", "qi"} & set(one(encode_private_key(RSA)).build_public_jwk())
