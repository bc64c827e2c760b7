"""DPoP: proofs that the sender of a token has the key that the token is bound to. Spec: RFC 9449.

`create_proof` is the side of a client, `verify_proof` that of an API. `provider.dpop_requests`
sends proofs and stores the nonces of servers.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hmac import compare_digest
from typing import Any, Final
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    derive_private_key,
)

from ..config.providers import ProviderDeclaration
from ..config.signature_algorithms import create_signature, import_key
from ..errors import DPoPProofInvalid, IDTokenError
from ..http.transport import TransportResponse, parse_json_body
from .id_token import parse_numeric_date
from .jose import JWS, decode_b64url, encode_b64url, parse_compact_jws
from .jwks import VerificationKey, parse_key
from .metadata import ProviderMetadata
from .token import extract_received_tokens

PROOF_TYP = "dpop+jwt"
DPOP_TOKEN_TYPE = "dpop"
"""In lower case, as a scheme of Authorization. Spec: RFC 9110 11.1; RFC 9449 7.1."""
CLIENT_PROOF_ALG = "ES256"
"""The algorithm of the portal's own proofs: the one that every server supports."""
ACCEPTED_PROOF_ALGS = ("ES256", "PS256", "EdDSA", "Ed25519")
"""Spec: FAPI 2.0 Security Profile 5.4.1."""
SEED_BYTES = 40
MAX_PROOF_AGE = timedelta(seconds=60)
MAX_PROOF_AHEAD = timedelta(seconds=10)
MAX_PROOF_BYTES = 8192
NONCE_ERROR = "use_dpop_nonce"

_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""Spec: RFC 7518 6.2.2, 6.3.2, 6.4.1; RFC 8037 2."""
_ORDER_OF_P256: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_NONCE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,512}")
"""Spec: RFC 9449 8.1 (NQCHAR). The length is limited because nonces are kept in memory and sent
again.
"""
_NONCE_CHALLENGE = re.compile(rf'\bDPoP\b.*\berror="?{NONCE_ERROR}"?', re.IGNORECASE | re.DOTALL)
_PERCENT_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")
_UNRESERVED = re.compile(rb"[A-Za-z0-9._~-]")
_DEFAULT_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofKey:
    """A P-256 key that the tokens of one sign-in are bound to."""

    private_key: EllipticCurvePrivateKey = field(repr=False)
    public_jwk: Mapping[str, Any]
    thumbprint: str
    """SHA-256, as in `jkt` and `dpop_jkt`. Spec: RFC 7638 3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedProof:
    """A proof that fits its request. Its jti is not known to be new."""

    thumbprint: str
    jti: str = field(repr=False)
    issued_at: datetime
    nonce: str = field(repr=False)
    """Empty if the proof has none."""


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


def verify_proof(
    proof: str,
    *,
    method: str,
    url: str,
    now: datetime,
    access_token: str = "",
    thumbprint: str = "",
) -> VerifiedProof:
    """Return what a proof for this request says.

    access_token: of the request, empty at an authorization server. thumbprint: of the key that the
    token is bound to, empty: any key. NOT checked: whether jti was used before, and the nonce; the
    caller does both.
    Raises: DPoPProofInvalid, with the rule. Spec: RFC 9449 4.3.
    """
    jws = _parse_proof(proof)
    if jws.media_type != PROOF_TYP:
        raise DPoPProofInvalid("dpop_typ")
    if jws.alg not in ACCEPTED_PROOF_ALGS:
        raise DPoPProofInvalid("dpop_alg")
    key, key_thumbprint = _get_proof_key(jws)
    if not key.verify(jws.alg, jws.signing_input, jws.signature):
        raise DPoPProofInvalid("dpop_signature")
    claims = jws.payload
    jti = claims.get("jti")
    nonce = claims.get("nonce", "")
    if not isinstance(jti, str) or not 0 < len(jti) <= 255:
        raise DPoPProofInvalid("dpop_jti")
    if not isinstance(nonce, str) or ("nonce" in claims and not nonce):
        raise DPoPProofInvalid("dpop_nonce")
    if claims.get("htm") != method:
        raise DPoPProofInvalid("dpop_htm")
    if not _is_same_url(claims.get("htu"), url):
        raise DPoPProofInvalid("dpop_htu")
    issued_at = parse_numeric_date(claims.get("iat"))
    if issued_at is None or not -MAX_PROOF_AHEAD <= now - issued_at <= MAX_PROOF_AGE:
        raise DPoPProofInvalid("dpop_iat")
    if access_token and not _is_equal(claims.get("ath"), compute_ath(access_token)):
        raise DPoPProofInvalid("dpop_ath")
    if thumbprint and not _is_equal(key_thumbprint, thumbprint):
        raise DPoPProofInvalid("dpop_jkt")
    return VerifiedProof(thumbprint=key_thumbprint, jti=jti, issued_at=issued_at, nonce=nonce)


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
    return f"{parts.scheme}://{_get_authority(parts)}"


def normalize_url(url: str) -> str:
    """Return the URL in its normal form, without query and fragment.

    Requires: an absolute URL. Raises: ValueError. Spec: RFC 9449 4.3; RFC 3986 6.2.2, 6.2.3.
    """
    parts = urlsplit(remove_query(url))
    if not parts.scheme or not parts.hostname or "@" in parts.netloc:
        raise ValueError("Not an absolute URL.")
    path = _PERCENT_ENCODED.sub(_normalize_percent_encoding, parts.path)
    return f"{parts.scheme}://{_get_authority(parts)}{_remove_dot_segments(path) or '/'}"


def _parse_proof(proof: str) -> JWS:
    try:
        return parse_compact_jws(proof, max_bytes=MAX_PROOF_BYTES)
    except IDTokenError:
        raise DPoPProofInvalid("dpop_malformed") from None


def _get_proof_key(jws: JWS) -> tuple[VerificationKey, str]:
    """Return the key in the header, which must be public, and its thumbprint. Spec: RFC 9449 4.2
    (jwk).
    """
    jwk = jws.header.get("jwk")
    if not isinstance(jwk, dict) or _PRIVATE_MEMBERS & jwk.keys():
        raise DPoPProofInvalid("dpop_jwk")
    key = parse_key(jwk)
    if key is None or not key.can_verify(jws.alg):
        raise DPoPProofInvalid("dpop_jwk")
    return key, import_key(key.public_key).thumbprint()


def _is_equal(claimed: object, expected: str) -> bool:
    return isinstance(claimed, str) and compare_digest(claimed.encode(), expected.encode())


def _is_same_url(claimed: object, url: str) -> bool:
    """A query or fragment in htu is ignored. Spec: RFC 9449 4.3."""
    try:
        return isinstance(claimed, str) and normalize_url(claimed) == normalize_url(url)
    except ValueError:
        return False


def _get_authority(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"

    is_default = parts.port in (None, _DEFAULT_PORTS.get(parts.scheme))
    if is_default:
        return host
    return f"{host}:{parts.port}"


def _normalize_percent_encoding(match: re.Match[str]) -> str:
    octet = unquote_to_bytes(match[0])
    if _UNRESERVED.fullmatch(octet):
        return octet.decode("ascii")
    return match[0].upper()


def _remove_dot_segments(path: str) -> str:
    """Spec: RFC 3986 5.2.4."""
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments:
        if segment == "..":
            del kept[max(len(kept) - 1, 1) :]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/".join(kept)
