"""The DPoP proof of an API request: its single use, and the nonces of this server.

Spec: RFC 9449 8, 9, 11.1.

A nonce is the minute of its creation with a MAC, so all servers accept it and none stores it.
"""

import hmac
from datetime import datetime, timedelta

from django.db import router, transaction

from ...access.responses import format_challenge
from ...crypto import keyring
from ...oidc.jose import decode_b64url, encode_b64url
from ...replay.cache import mark_used, mark_used_in_transaction
from ...replay.models import UsedIdentifier
from ..common.api_errors import DPoPProofInvalid
from ..common.dpop_proofs import ACCEPTED_PROOF_ALGS, MAX_PROOF_AGE, MAX_PROOF_AHEAD, VerifiedProof

NONCE_LIFETIME = timedelta(minutes=5)
NONCE_REQUIRED = "dpop_nonce_required"
_NONCE_PERIOD_SECONDS = 60
_MINUTE_BYTES = 8


def accept_proof(proof: VerifiedProof, *, requires_nonce: bool, now: datetime) -> None:
    """Mark the proof as used, once across all processes, after the check of its nonce if one is
    required.

    Requires: the token is valid, so that a stranger cannot fill the table. In a transaction of the
    caller, such as that of `ATOMIC_REQUESTS`, a rollback makes the proof usable again.
    Raises: DPoPProofInvalid. Spec: RFC 9449 8, 9, 11.1.
    """
    if requires_nonce and not is_current_nonce(proof.nonce, now=now):
        raise DPoPProofInvalid(NONCE_REQUIRED)
    connection = transaction.get_connection(router.db_for_write(UsedIdentifier))
    if connection.in_atomic_block:
        mark = mark_used_in_transaction
    else:
        mark = mark_used

    # The clock of another server may be behind, so that it would accept the proof for a little
    # longer.
    expires_at = proof.issued_at + MAX_PROOF_AGE + MAX_PROOF_AHEAD
    if not mark("dpop", f"{proof.thumbprint} {proof.jti}", expires_at=expires_at):
        raise DPoPProofInvalid("dpop_replayed")


def create_nonce(now: datetime) -> str:
    """Return the nonce for the next proof. Spec: RFC 9449 8, 9."""
    minute = (int(now.timestamp()) // _NONCE_PERIOD_SECONDS).to_bytes(_MINUTE_BYTES, "big")
    return encode_b64url(minute + _compute_mac(keyring.get_keys("encryption")[0], minute))


def is_current_nonce(nonce: str, *, now: datetime) -> bool:
    """Return whether create_nonce returned that nonce on any server within NONCE_LIFETIME."""
    try:
        raw = decode_b64url(nonce)
    except ValueError:
        return False
    minute = raw[:_MINUTE_BYTES]
    mac = raw[_MINUTE_BYTES:]
    age_seconds = now.timestamp() - int.from_bytes(minute, "big") * _NONCE_PERIOD_SECONDS
    if not -_NONCE_PERIOD_SECONDS <= age_seconds <= NONCE_LIFETIME.total_seconds():
        return False
    return any(
        hmac.compare_digest(_compute_mac(key, minute), mac)
        for key in keyring.get_keys("encryption")
    )


def format_dpop_challenge(**parameters: str) -> str:
    """Return the challenge with the accepted algorithms. Spec: RFC 9449 7.1."""
    return format_challenge("DPoP", **parameters, algs=" ".join(ACCEPTED_PROOF_ALGS))


def _compute_mac(key: keyring.SymmetricKey, minute: bytes) -> bytes:
    return hmac.digest(key.material, b"django_phi_oidc dpop nonce\x00" + minute, "sha256")[:16]
