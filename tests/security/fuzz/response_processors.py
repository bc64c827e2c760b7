"""The functions that process provider responses, each as a function of the bytes of the body."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.http.transport import TransportResponse
from django_phi_oidc.oidc.id_token import find_auth_time, verify_id_token
from django_phi_oidc.oidc.jose import encode_b64url, parse_compact_jws, parse_json_object
from django_phi_oidc.oidc.jwks import parse_jwks
from django_phi_oidc.oidc.metadata import process_jwks_response, process_metadata_response
from django_phi_oidc.oidc.pushed_authorization import process_par_response
from django_phi_oidc.oidc.token import extract_received_tokens, process_token_response
from django_phi_oidc.oidc.userinfo import process_userinfo_response

ISSUER = "https://op.example"
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
NONCE, ACCESS_TOKEN, SUB = "the-nonce-of-this-sign-in", "an-access-token", "a-subject"
DECLARATION = ProviderDeclaration(name="default", issuer=ISSUER, client_id="portal", client_secret="s3cret")

_ALGORITHM = ECAlgorithm(ECAlgorithm.SHA256)
_KEY = ec.generate_private_key(ec.SECP256R1())
EC_JWK: dict[str, Any] = {**ECAlgorithm.to_jwk(_KEY.public_key(), as_dict=True), "kid": "p256", "use": "sig"}
EC_JWK.pop("key_ops", None)
RSA_JWK = {"kty": "RSA", "kid": "rsa", "e": "AQAB", "n": encode_b64url(b"\xf1" * 256), "alg": "PS256"}
OKP_JWK = {"kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": encode_b64url(b"\x11" * 32), "key_ops": ["verify"]}
JWKS = {"keys": [EC_JWK, RSA_JWK, OKP_JWK]}
KEYS = parse_jwks(json.dumps(JWKS).encode())

METADATA = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/authorize?tenant=1",
    "token_endpoint": f"{ISSUER}/token",
    "jwks_uri": f"{ISSUER}:8443/jwks",
    "userinfo_endpoint": f"{ISSUER}/userinfo",
    "revocation_endpoint": f"{ISSUER}/revoke",
    "end_session_endpoint": f"{ISSUER}/end-session",
    "pushed_authorization_request_endpoint": f"{ISSUER}/par",
    "require_pushed_authorization_requests": False,
    "prompt_values_supported": ["login", "consent"],
    "subject_types_supported": ["public", "pairwise"],
    "id_token_signing_alg_values_supported": ["ES256", "RS256"],
    "authorization_response_iss_parameter_supported": True,
}
HEADER = {"alg": "ES256", "kid": "p256", "typ": "JWT"}
CLAIMS = {
    "iss": ISSUER,
    "aud": ["portal"],
    "azp": "portal",
    "sub": SUB,
    "nonce": NONCE,
    "iat": int(NOW.timestamp()),
    "exp": int(NOW.timestamp()) + 300,
    "auth_time": int(NOW.timestamp()),
    "acr": "2",
    "email": "amina@example.org",
}
TOKENS = {
    "access_token": ACCESS_TOKEN,
    "refresh_token": "a-refresh-token",
    "id_token": "an.id.token",
    "token_type": "Bearer",
    "expires_in": 300,
}
PUSHED = {"request_uri": "urn:ietf:params:oauth:request_uri:6esc", "expires_in": 60}
USERINFO = {"sub": SUB, "birthdate": "1984-03-09", "address": {"country": "NL"}}


def sign(header: bytes, payload: bytes) -> str:
    """Return a compact JWS of any bytes with a valid signature."""
    signing_input = f"{encode_b64url(header)}.{encode_b64url(payload)}"
    return f"{signing_input}.{encode_b64url(_ALGORITHM.sign(signing_input.encode(), _KEY))}"


def create_response(body: bytes, media_type: str = "application/json") -> TransportResponse:
    return TransportResponse(status=200, headers={"content-type": media_type}, body=body)


def _process_userinfo(body: bytes, media_type: str) -> Any:
    return process_userinfo_response(
        create_response(body, media_type), expected_sub=SUB, keys=KEYS, declaration=DECLARATION, now=NOW
    )


def process_id_token(token: str) -> Any:
    """Verify an ID Token with all optional checks, and parse its auth_time."""
    claims = verify_id_token(
        token,
        keys=KEYS,
        declaration=DECLARATION,
        expected_nonce=NONCE,
        is_issued_nonce=lambda nonce: False,
        access_token=ACCESS_TOKEN,
        now=NOW,
    )
    find_auth_time(claims)
    return claims


PROCESSORS: dict[str, Callable[[bytes], Any]] = {
    "metadata": lambda body: process_metadata_response(create_response(body), declaration=DECLARATION),
    "jwks": lambda body: process_jwks_response(create_response(body)),
    "token": lambda body: process_token_response(create_response(body), declaration=DECLARATION),
    "received": lambda body: extract_received_tokens(create_response(body)),
    "received form": lambda body: extract_received_tokens(create_response(body, "application/x-www-form-urlencoded")),
    "par": lambda body: process_par_response(replace(create_response(body), status=201), declaration=DECLARATION),
    "userinfo": lambda body: _process_userinfo(body, "application/json"),
    "signed userinfo": lambda body: _process_userinfo(body, "application/jwt"),
    "jws": lambda body: parse_compact_jws(body.decode("latin-1")),
    "payload": lambda body: parse_compact_jws(sign(b'{"alg":"ES256"}', body)),
    "id_token": lambda body: process_id_token(body.decode("latin-1")),
    "json": parse_json_object,
}
"""Functions by the kind of their input."""
