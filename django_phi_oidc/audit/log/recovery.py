"""A restored log goes on, in an epoch of its own that begins with the event that says so.

Where the log went on after a restore, as the log itself tells: by its events `audit.restored`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..._internal.sql import insert
from ...errors import CheckpointInvalid, SealingRefused
from ...merkle.checkpoint import Checkpoint, verify_checkpoint
from ...merkle.rfc6962 import hash_leaf
from ..events import Action, NewEvent, Origin, canonical_bytes
from ..router import AUDIT_ALIAS
from ..storage import authenticate_event, build_rows, log_events
from .keys import find_epoch, get_public_keys
from .reader import read_restore_events
from .sequencer import (
    LogState,
    append_leaves,
    exclusive_transaction,
    get_last_signed_log,
    is_consistent_with,
    update_witness_file,
)
from .witness import get_witnessed_checkpoints


def resume_log(*, witnessed_note: str, reason: str, key: Ed25519PrivateKey, now: datetime) -> str:
    """Open the next epoch of a restored log, and return its first checkpoint.

    outside: the largest checkpoint that is known outside, which the database does not continue. The epoch's first leaf
    is the event `audit.restored` with that checkpoint's size and root, for everybody to see.
    Raises: CheckpointInvalid; SealingRefused when the database does continue it, or a larger one is known.
    """
    keys = get_public_keys(key)
    lost = verify_checkpoint(witnessed_note, keys)
    epoch = find_epoch(lost.origin)
    if epoch is None:
        raise CheckpointInvalid("That is a checkpoint of another log.")
    with exclusive_transaction():
        log = get_last_signed_log(keys)
        if epoch < log.epoch or (epoch == log.epoch and is_consistent_with(log.compact_range, lost)):
            raise SealingRefused("The log continues that checkpoint: there is nothing to resume.")
        for of, known in get_witnessed_checkpoints(keys).items():
            if (of, known.tree_size) > (epoch, lost.tree_size):
                raise SealingRefused(f"A larger checkpoint is known outside: {known.tree_size} of {known.origin}.")
        detail = {
            "epoch": epoch + 1,
            "origin": lost.origin,
            "tree_size": lost.tree_size,
            "root_hash": lost.root_hash.hex(),
            "why": reason,
        }
        restored = authenticate_event(NewEvent(action=Action.AUDIT_RESTORED, origin=Origin(), now=now, detail=detail))
        insert(build_rows([restored]), using=AUDIT_ALIAS)
        leaf = restored.event.id.bytes, hash_leaf(canonical_bytes(restored.event))
        note = append_leaves(LogState(epoch=epoch + 1, compact_range=log.compact_range), [leaf], key=key, now=now)
    log_events([restored])
    update_witness_file(note)
    return note


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRestore:
    """The first leaf of an epoch."""

    leaf_index: int
    lost_checkpoint: Checkpoint
    """The largest one that was known outside, and that the restored log did not continue."""


def get_log_restores(archived_events: Iterable[tuple[int, bytes]] = ()) -> Mapping[int, LogRestore]:
    """Return what opened each epoch but the first, by the epoch; of two that say so, the first in the log.

    archived: leaf index and canonical bytes of such events that are not in the table any more. Whether they are as they
    were sealed is NOT checked; one that can't be read opens nothing.
    """
    told = [(row.leaf_index, row.canonical or b"") for row in read_restore_events() if row.leaf_index >= 0]
    found: dict[int, LogRestore] = {}
    for leaf_index, canonical in sorted([*told, *archived_events]):
        for epoch, lost in _parse_restore_event(canonical):
            found.setdefault(epoch, LogRestore(leaf_index=leaf_index, lost_checkpoint=lost))
    return found


def _parse_restore_event(canonical: bytes) -> Iterator[tuple[int, Checkpoint]]:
    try:
        detail = json.loads(canonical)["detail"]
        root_hash = bytes.fromhex(detail["root_hash"])
        epoch, tree_size, name = detail["epoch"], detail["tree_size"], detail["origin"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return
    if type(epoch) is int and type(tree_size) is int and isinstance(name, str):
        yield epoch, Checkpoint(origin=name, tree_size=tree_size, root_hash=root_hash)
