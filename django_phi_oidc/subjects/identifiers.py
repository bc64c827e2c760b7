"""Keyed digests of (issuer, `sub`) and of activation codes, and the pairwise identifiers for other
systems.
"""

import hashlib
import hmac
from collections.abc import Sequence


def compute_subject_digest(key: bytes, *, issuer: str, sub: str) -> str:
    """Return HMAC-SHA256 over issuer and sub, hexadecimal.

    Each is UTF-8, preceded by its length in bytes (4 bytes, big-endian), so no two pairs give the
    same message.
    Spec: OIDC Core 5.7: only issuer and `sub` together identify a person.
    """
    return _compute_hmac(key, issuer, sub)


def compute_pairwise_value(key: bytes, *, sector: str, user_model_label: str, pk: str) -> str:
    """Return HMAC-SHA256 over sector, the user model's label and the user's primary key,
    hexadecimal.

    Each is encoded as in compute_subject_digest. Three parts never give the message of a subject
    digest. Without the key, a value cannot be linked to the user or to the value in another sector.
    Spec: OIDC Core 8.1.
    """
    return _compute_hmac(key, sector, user_model_label, pk)


def compute_link_binding(
    key: bytes, *, subject_digest: str, subject_uuid: str, user_pk: str
) -> str:
    """Return HMAC-SHA256 over a subject digest, its subject and the user's primary key,
    hexadecimal.

    A writer to the database can change the link of a subject, or move its digest, but cannot
    compute this.
    """
    # Four parts never give the message of another digest.
    return _compute_hmac(key, "link", subject_digest, subject_uuid, user_pk)


def compute_activation_digest(key: bytes, *, issuer: str, code: str) -> str:
    """Return HMAC-SHA256 over issuer and code, hexadecimal. A code is valid for one issuer only."""
    # The first text is no sector, so no other digest has this message.
    return _compute_hmac(key, "activation code", issuer, code)


def compute_activation_binding(
    key: bytes, *, activation_digest: str, user_pk: str, privileges: Sequence[str]
) -> str:
    """Return HMAC-SHA256 over an activation digest, its user and the privileges of the user,
    hexadecimal.

    A writer to the database can assign their own code to another user, but cannot compute this.
    """
    # More parts than other digests have.
    return _compute_hmac(
        key, "activation", activation_digest, user_pk, str(len(privileges)), *privileges
    )


def _compute_hmac(key: bytes, *parts: str) -> str:
    message = b""
    for part in parts:
        encoded = part.encode("utf-8")
        message += len(encoded).to_bytes(4, "big") + encoded
    return hmac.new(key, message, hashlib.sha256).hexdigest()
