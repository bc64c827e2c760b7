"""DPoP: proofs that the sender of a token has the key that the token is bound to. Spec: RFC 9449.

This is the side of a client. `provider.dpop_requests` sends proofs, and stores the nonces of
servers.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    derive_private_key,
)

from ..config.providers import ProviderDeclaration
from ..config.signature_algorithms import create_signature, import_key
from ..http.transport import TransportResponse, parse_json_body
from .jose import decode_b64url, encode_b64url
from .metadata import ProviderMetadata
from .token import extract_received_tokens

PROOF_TYP = "dpop+jwt"
DPOP_TOKEN_TYPE = "dpop"
"""In lower case, as a scheme of Authorization. Spec: RFC 9110 11.1; RFC 9449 7.1."""
CLIENT_PROOF_ALG = "ES256"
"""The algorithm of the portal's own proofs: the one that every server supports."""
SEED_BYTES = 40
NONCE_ERROR = "use_dpop_nonce"

_ORDER_OF_P256: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_NONCE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,512}")
"""Spec: RFC 9449 8.1 (NQCHAR). The length is limited because nonces are kept in memory and sent
again.
"""
_NONCE_CHALLENGE = re.compile(rf'\bDPoP\b.*\berror="?{NONCE_ERROR}"?', re.IGNORECASE | re.DOTALL)
_DEFAULT_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofKey:
    """A P-256 key that the tokens of one sign-in are bound to."""

    private_key: EllipticCurvePrivateKey = field(repr=False)
    public_jwk: Mapping[str, Any]
    thumbprint: str
    """SHA-256, as in `jkt` and `dpop_jkt`. Spec: RFC 7638 3."""


def create_proof_key(seed: str) -> ProofKey:
    """Return the key of a seed: SEED_BYTES random bytes as base64url, which are stored instead of
    the key.

    The bits above 256 make the bias of the modulo negligible. Raises: ValueError. Spec: FIPS 186-5
    A.2.1.
    """
    random = decode_b64url(seed)
    if len(random) != SEED_BYTES:
        raise ValueError("Not the seed of a key.")
    private_key = derive_private_key(
        int.from_bytes(random, "big") % (_ORDER_OF_P256 - 1) + 1, SECP256R1()
    )
    public_key = import_key(private_key.public_key())
    return ProofKey(
        private_key=private_key, public_jwk=public_key.as_dict(), thumbprint=public_key.thumbprint()
    )


def is_dpop_enabled(*, metadata: ProviderMetadata, declaration: ProviderDeclaration) -> bool:
    """Return whether requests have proofs: as declared, with `auto` if the provider supports ES256.

    `require` without that is refused when the metadata is processed. Spec: RFC 9449 5.1.
    """
    is_offered = CLIENT_PROOF_ALG in metadata.dpop_signing_alg_values_supported
    return declaration.dpop == "require" or (declaration.dpop == "auto" and is_offered)


def create_proof(
    key: ProofKey,
    *,
    method: str,
    url: str,
    jti: str,
    now: datetime,
    access_token: str = "",
    nonce: str = "",
) -> str:
    """Return a proof for one request. jti: unpredictable, and new for each request, also for a
    retry.

    access_token: only with a request that the token authorizes. nonce: the last one that this
    server sent.
    Spec: RFC 9449 4.2.
    """
    header = {"typ": PROOF_TYP, "alg": CLIENT_PROOF_ALG, "jwk": dict(key.public_jwk)}
    claims: dict[str, Any] = {
        "jti": jti,
        "htm": method,
        "htu": remove_query(url),
        "iat": int(now.timestamp()),
        **({"ath": compute_ath(access_token)} if access_token else {}),
        **({"nonce": nonce} if nonce else {}),
    }
    parts = (json.dumps(part, separators=(",", ":")).encode("ascii") for part in (header, claims))
    signing_input = ".".join(map(encode_b64url, parts))
    signature = create_signature(
        CLIENT_PROOF_ALG, key.private_key, signing_input=signing_input.encode("ascii")
    )
    return f"{signing_input}.{encode_b64url(signature)}"


def find_nonce(headers: Mapping[str, str]) -> str:
    """Return the nonce for the next request to that server; empty if there is none, or none that is
    valid.

    headers: names in lower case. Spec: RFC 9449 8, 8.1, 8.2.
    """
    nonce = headers.get("dpop-nonce", "")
    if _NONCE.fullmatch(nonce):
        return nonce
    return ""


def is_nonce_required(response: TransportResponse) -> bool:
    """Return whether the server refused the proof only for its nonce, and sent one for another
    attempt.

    An authorization server says so in the body, an API in WWW-Authenticate. A response with tokens
    is none of these: it is refused as any other, and its tokens are revoked. Spec: RFC 9449 8, 9.
    """
    if not find_nonce(response.headers) or extract_received_tokens(response):
        return False
    if response.status == 401 and is_nonce_challenge(response.headers.get("www-authenticate", "")):
        return True
    error = (parse_json_body(response) or {}).get("error")
    return response.status in (400, 401) and error == NONCE_ERROR


def is_nonce_challenge(www_authenticate: str) -> bool:
    """Return whether the challenge of an API asks for a proof with its nonce. Spec: RFC 9449 9."""
    return _NONCE_CHALLENGE.search(www_authenticate) is not None


def compute_ath(access_token: str) -> str:
    """Return the hash that binds a proof to an access token. Spec: RFC 9449 4.2 (ath)."""
    return encode_b64url(hashlib.sha256(access_token.encode()).digest())


def remove_query(url: str) -> str:
    """Return the URL without query and fragment. Spec: RFC 9449 4.2 (htu)."""
    return url.partition("#")[0].partition("?")[0]


def get_origin(url: str) -> str:
    """Return scheme, host and port, normalized: the server that a nonce is for. Spec: RFC 9449 8;
    RFC 6454 4.
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{get_authority(parts)}"


def get_authority(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"

    is_default = parts.port in (None, _DEFAULT_PORTS.get(parts.scheme))
    if is_default:
        return host
    return f"{host}:{parts.port}"
