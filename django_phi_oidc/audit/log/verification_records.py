"""How far the log was verified, kept between two verifications in the database, and signed with the
log's key.

An attacker who can write the database can remove a record, or put back an older one: then more is
verified, not less.
A record needs the signing key, with which any log can be signed anyway. A verification without that
key reads the records, and writes none. Records of a retired key do not count: after a rotation, the
whole log is verified again.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..._internal.randomness import lowest_uuid7
from ..errors import CheckpointInvalid, LogDamaged, SealingRefused
from ..merkle.checkpoint import (
    Checkpoint,
    LogKey,
    NoteSigner,
    RetiredKey,
    parse_checkpoint,
    sign_statement,
    verify_statement,
)
from ..models import VerificationRecord
from .cosigned_checkpoints import find_seen_place
from .ranges import LogRange, get_range_after, is_continued, verify_row
from .reader import read_checkpoints
from .signing_keys import get_checkpoint_origin, get_public_keys

logger = logging.getLogger("phi_oidc.audit")
_LOG_RECORD = "log"
_OVERLAP = timedelta(days=1)
"""Events without a leaf are read again from so long before the last verification."""


def read_record(name: str, keys: Sequence[LogKey]) -> dict[str, Any] | None:
    """Return the content of a record; None if there is none that one of `keys` has signed."""
    note = VerificationRecord.objects.filter(name=name).values_list("note", flat=True).first()
    if note is None:
        return None
    current = []
    for key in keys:
        if not isinstance(key, RetiredKey):
            current.append(key)
    try:
        content = json.loads(verify_statement(note, current, name=_get_key_name(name)))
    except (CheckpointInvalid, ValueError):
        logger.warning(
            "The record of the last verification is not signed by a known key, and is ignored."
        )
        return None

    if isinstance(content, dict):
        return content
    return None


def write_record(name: str, content: Mapping[str, Any], key: NoteSigner) -> None:
    """Replace a record. content: a JSON object."""
    note = sign_statement(json.dumps(content) + "\n", name=_get_key_name(name), key=key)
    VerificationRecord.objects.update_or_create(name=name, defaults={"note": note})


@dataclass(frozen=True, slots=True, kw_only=True)
class LastVerification:
    """The newest checkpoint up to which a verification found no faults."""

    checkpoint: Checkpoint
    note: str
    """The note of the checkpoint."""
    verified_at: datetime

    def get_new_range(self) -> LogRange:
        """Return what is new since then.

        Raises: LogDamaged if the log does not lead to the checkpoint, ends before it, or ends there
        with another one: nothing would then be read that shows it.
        """
        newest = read_checkpoints(-1, limit=1, newest_first=True)
        if not newest or (
            newest[0].tree_size <= self.checkpoint.tree_size and newest[0].note != self.note
        ):
            raise LogDamaged(
                f"The log does not end with the checkpoint of {self.checkpoint.tree_size} events."
            )
        return get_range_after(self.checkpoint, first_id=lowest_uuid7(self.verified_at - _OVERLAP))


def find_last_verification(keys: Sequence[LogKey]) -> LastVerification | None:
    """Return the last verification that one of `keys` has signed, if any."""
    content = read_record(_LOG_RECORD, keys)
    if content is None:
        return None
    note = content["checkpoint"]
    verified_at = datetime.fromisoformat(content["verified_at"])
    return LastVerification(checkpoint=parse_checkpoint(note), note=note, verified_at=verified_at)


def record_verified_log(
    verified_size: int, verified_root: bytes, *, key: NoteSigner, now: datetime
) -> None:
    """Record that the log up to a size has no faults, by a checkpoint that the verified tree
    continues.

    verified_root: of the tree that the verification computed. What the database says now may have
    been replaced since. If checkpoints are witnessed outside, or a quorum of witnesses is declared,
    a larger one than these is not recorded: what only the database has seen can still be replaced.
    Raises: KeyMissing for a wrong key of a witness.
    """
    keys = get_public_keys(key)
    try:
        seen = find_seen_place(keys)
    except SealingRefused:
        # The witness file cannot be read.
        return
    below_size = (verified_size if seen is None else min(verified_size, seen[1])) + 1
    for row in read_checkpoints(0, limit=1, newest_first=True, below_size=below_size):
        if seen is not None and row.epoch > seen[0]:
            return
        with suppress(CheckpointInvalid):
            old = verify_row(row, keys)
            if is_continued(
                old.tree_size, old.root_hash, size=verified_size, root_hash=verified_root
            ):
                write_record(
                    _LOG_RECORD, {"checkpoint": row.note, "verified_at": now.isoformat()}, key
                )


def _get_key_name(name: str) -> str:
    """Return the name under which a record is signed: no other statement has it."""
    return f"{get_checkpoint_origin(1)}/verification-{name}"
