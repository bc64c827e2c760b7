"""Keyed digests of (issuer, `sub`) and of activation codes, and the pairwise identifiers for other systems."""

import hashlib
import hmac


def compute_subject_digest(key: bytes, *, issuer: str, sub: str) -> str:
    """Return HMAC-SHA256 over issuer and sub, hexadecimal.

    Each is UTF-8, preceded by its length in bytes (4 bytes, big-endian), so no two pairs give the same message.
    Spec: OIDC Core 5.7: only issuer and `sub` together identify a person.
    """
    return hmac.new(key, _encode_length_prefixed(issuer) + _encode_length_prefixed(sub), hashlib.sha256).hexdigest()


def compute_pairwise_value(key: bytes, *, sector: str, user_model_label: str, pk: str) -> str:
    """Return HMAC-SHA256 over sector, the user model's label and the user's primary key, hexadecimal.

    Each is encoded as in compute_subject_digest. Three parts never give the message of a subject digest. Without the
    key, a value cannot be linked to the user or to the value in another sector.
    Spec: OIDC Core 8.1.
    """
    message = b"".join(_encode_length_prefixed(part) for part in (sector, user_model_label, pk))
    return hmac.new(key, message, hashlib.sha256).hexdigest()


def compute_activation_digest(key: bytes, *, issuer: str, code: str) -> str:
    """Return HMAC-SHA256 over issuer and code, hexadecimal. A code is valid for one issuer only.

    Each is encoded as in compute_subject_digest, after a text that is no sector, so no other digest has this message.
    """
    message = b"".join(_encode_length_prefixed(part) for part in ("activation code", issuer, code))
    return hmac.new(key, message, hashlib.sha256).hexdigest()


def _encode_length_prefixed(text: str) -> bytes:
    data = text.encode("utf-8")
    return len(data).to_bytes(4, "big") + data
