"""Verification of DPoP proofs, which is the side of a server. Spec: RFC 9449.

`oidc.dpop` is the side of a client.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hmac import compare_digest
from urllib.parse import unquote_to_bytes, urlsplit

from ...config.signature_algorithms import import_key
from ...errors import IDTokenError
from ...oidc.dpop import PROOF_TYP, compute_ath, get_authority, remove_query
from ...oidc.id_token import parse_numeric_date
from ...oidc.jose import JWS, parse_compact_jws
from ...oidc.jwks import VerificationKey, parse_key
from .api_errors import DPoPProofInvalid

ACCEPTED_PROOF_ALGS = ("ES256", "PS256", "EdDSA", "Ed25519")
"""Spec: FAPI 2.0 Security Profile 5.4.1."""
MAX_PROOF_AGE = timedelta(seconds=60)
MAX_PROOF_AHEAD = timedelta(seconds=10)
MAX_PROOF_BYTES = 8192
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""Spec: RFC 7518 6.2.2, 6.3.2, 6.4.1; RFC 8037 2."""
_PERCENT_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")
_UNRESERVED = re.compile(rb"[A-Za-z0-9._~-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedProof:
    """A proof that fits its request. Its jti is not known to be new."""

    thumbprint: str
    jti: str = field(repr=False)
    issued_at: datetime
    nonce: str = field(repr=False)
    """Empty if the proof has none."""


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


def normalize_url(url: str) -> str:
    """Return the URL in its normal form, without query and fragment.

    Requires: an absolute URL. Raises: ValueError. Spec: RFC 9449 4.3; RFC 3986 6.2.2, 6.2.3.
    """
    parts = urlsplit(remove_query(url))
    if not parts.scheme or not parts.hostname or "@" in parts.netloc:
        raise ValueError("Not an absolute URL.")
    path = _PERCENT_ENCODED.sub(_normalize_percent_encoding, parts.path)
    return f"{parts.scheme}://{get_authority(parts)}{_remove_dot_segments(path) or '/'}"


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
