"""Fixtures for the tests of protocol code: keys, a declaration and a signer. No database, no network, no clock."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, settings
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm, RSAPSSAlgorithm

from django_phi_oidc.config.client_keys import ClientKey, parse_client_keys
from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.http.transport import TransportResponse
from django_phi_oidc.oidc.client_auth import AssertionFreshness
from django_phi_oidc.oidc.jose import encode_b64url
from django_phi_oidc.oidc.jwks import JSONWebKeySet, parse_jwks
from django_phi_oidc.oidc.metadata import ProviderMetadata

# The first draw of a fresh clone builds Unicode tables, which takes longer than an example may on a busy machine.
settings.register_profile("oidc", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("oidc")

ISSUER = "https://op.example"
ALGORITHMS = {
    **{f"RS{bits}": RSAAlgorithm(getattr(RSAAlgorithm, f"SHA{bits}")) for bits in (256, 384, 512)},
    **{f"PS{bits}": RSAPSSAlgorithm(getattr(RSAPSSAlgorithm, f"SHA{bits}")) for bits in (256, 384, 512)},
    **{f"ES{bits}": ECAlgorithm(getattr(ECAlgorithm, f"SHA{bits}")) for bits in (256, 384, 512)},
    **dict.fromkeys(("EdDSA", "Ed25519"), OKPAlgorithm()),
}
KIDS = {"ES256": "p256", "ES384": "p384", "ES512": "p521", "EdDSA": "ed25519", "Ed25519": "ed25519"}


@pytest.fixture(scope="session")
def now() -> datetime:
    return datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def private_keys() -> dict[str, Any]:
    """Return the keys by kid."""
    return {
        "rsa": rsa.generate_private_key(65537, 2048),
        "p256": ec.generate_private_key(ec.SECP256R1()),
        "p384": ec.generate_private_key(ec.SECP384R1()),
        "p521": ec.generate_private_key(ec.SECP521R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
    }


@pytest.fixture(scope="session")
def client_keys(private_keys: dict[str, Any]) -> dict[str, ClientKey]:
    """Return the same keys as client keys."""
    pems = [
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode() for key in private_keys.values()
    ]
    return dict(zip(private_keys, parse_client_keys("client_keys", pems), strict=True))


@pytest.fixture(scope="session")
def freshness(now: datetime) -> AssertionFreshness:
    return AssertionFreshness(now=now, jti="a-jti")


@pytest.fixture(scope="session")
def jwks(private_keys: dict[str, Any]) -> dict[str, Any]:
    """Return a document with one public key for each type."""
    publishers = {"rsa": RSAAlgorithm, "ed25519": OKPAlgorithm}
    keys = []
    for kid, key in private_keys.items():
        jwk = publishers.get(kid, ECAlgorithm).to_jwk(key.public_key(), as_dict=True)
        jwk.pop("key_ops", None)
        keys.append({**jwk, "kid": kid, "use": "sig"})
    return {"keys": keys}


@pytest.fixture(scope="session")
def keys(jwks: dict[str, Any]) -> JSONWebKeySet:
    return parse_jwks(json.dumps(jwks).encode())


@pytest.fixture(scope="session")
def sign(private_keys: dict[str, Any]) -> Callable[..., str]:
    """sign(payload, alg="ES256", header={…}, kid=…): a compact JWS with any payload and header."""

    def sign(
        payload: Mapping[str, Any] | bytes,
        *,
        alg: str = "ES256",
        header: Mapping[str, Any] | None = None,
        kid: str = "",
    ) -> str:
        parts = {"alg": alg, "kid": kid or KIDS.get(alg, "rsa"), **(header or {})}
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        signing_input = f"{encode_b64url(json.dumps(parts).encode())}.{encode_b64url(body)}"
        signature = ALGORITHMS[alg].sign(signing_input.encode(), private_keys[kid or KIDS.get(alg, "rsa")])
        return f"{signing_input}.{encode_b64url(signature)}"

    return sign


@pytest.fixture(scope="session")
def declare() -> Callable[..., ProviderDeclaration]:
    """declare(max_age=60, …): the default declaration with these changes."""

    def declare(**changes: Any) -> ProviderDeclaration:
        default = {"name": "default", "issuer": ISSUER, "client_id": "portal", "client_secret": "s3cret"}
        return ProviderDeclaration(**{**default, **changes})

    return declare


@pytest.fixture(scope="session")
def metadata() -> ProviderMetadata:
    return ProviderMetadata(
        issuer=ISSUER,
        authorization_endpoint=f"{ISSUER}/authorize",
        token_endpoint=f"{ISSUER}/token",
        jwks_uri=f"{ISSUER}/jwks",
        userinfo_endpoint=f"{ISSUER}/userinfo",
        revocation_endpoint=f"{ISSUER}/revoke",
    )


@pytest.fixture(scope="session")
def make_response() -> Callable[..., TransportResponse]:
    """make_response({…}, status=200, content_type=…): a response with a bytes body, or with other values as JSON."""

    def make_response(
        body: Any = b"", *, status: int = 200, content_type: str = "application/json", headers: Any = None
    ) -> TransportResponse:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return TransportResponse(status=status, headers={"content-type": content_type, **(headers or {})}, body=content)

    return make_response
