"""Continue a restored log in a new epoch, which begins with an `audit.restored` event, and read
these events back.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from ..errors import CheckpointInvalid, SealingRefused
from ..events import Action, NewEvent, Origin
from ..merkle.checkpoint import Checkpoint, NoteSigner, verify_checkpoint
from ..storage import log_events
from .reader import read_restore_events
from .sequencer import (
    LogState,
    exclusive_transaction,
    get_last_signed_log,
    insert_declaration,
    is_consistent_with,
    update_witness_file,
)
from .signing_keys import find_epoch, get_public_keys
from .witness import get_witnessed_checkpoints


def resume_log(*, witnessed_note: str, reason: str, key: NoteSigner, now: datetime) -> str:
    """Start the next epoch of a restored log, and return its first checkpoint.

    witnessed_note: the largest checkpoint known outside, which the database does not continue. The
    first leaf of the epoch is an `audit.restored` event with the size and root of that checkpoint,
    so that the restore is on record.
    Raises: CheckpointInvalid; SealingRefused if the database does continue it, or if a larger one
    is known.
    """
    keys = get_public_keys(key)
    lost = verify_checkpoint(witnessed_note, keys)
    epoch = find_epoch(lost.origin)
    if epoch is None:
        raise CheckpointInvalid("The checkpoint belongs to another log.")
    with exclusive_transaction():
        log = get_last_signed_log(keys)
        if epoch < log.epoch or (
            epoch == log.epoch and is_consistent_with(log.compact_range, lost)
        ):
            raise SealingRefused("The log continues that checkpoint: there is nothing to resume.")
        for known_epoch, known in get_witnessed_checkpoints(keys).items():
            if (known_epoch, known.tree_size) > (epoch, lost.tree_size):
                raise SealingRefused(
                    f"A larger checkpoint is known outside: {known.tree_size} of {known.origin}."
                )
        detail = {
            "epoch": epoch + 1,
            "origin": lost.origin,
            "tree_size": lost.tree_size,
            "why": reason,
        }
        detail["root_hash"] = lost.root_hash.hex()
        new_event = NewEvent(action=Action.AUDIT_RESTORED, origin=Origin(), now=now, detail=detail)
        next_epoch = LogState(epoch=epoch + 1, compact_range=log.compact_range)
        restored, note = insert_declaration(next_epoch, new_event, key=key)
    log_events([restored])
    update_witness_file(note)
    return note


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRestore:
    """What an `audit.restored` event declares. It counts only if the next checkpoint was signed
    under its epoch.
    """

    epoch: int
    """The epoch that it claims to open."""
    leaf_index: int
    lost_checkpoint: Checkpoint
    """The largest checkpoint known outside, which the restored log did not continue."""


def read_declared_restores(archived_events: Iterable[tuple[int, bytes]] = ()) -> list[LogRestore]:
    """Return the restores that sealed events declare, in leaf order.

    archived_events: leaf index and canonical bytes of such events that are no longer in the table.
    NOT checked: whether an event is as it was sealed, and whether a restore opened that epoch. An
    event that cannot be parsed is ignored.
    """
    stored_events = []
    for row in read_restore_events():
        if row.leaf_index >= 0:
            stored_events.append((row.leaf_index, row.canonical or b""))
    restores = []
    for event in sorted([*stored_events, *archived_events]):
        restores.append(_parse_restore_event(*event))
    declared_restores = []
    for restore in restores:
        if restore is not None:
            declared_restores.append(restore)
    return declared_restores


def _parse_restore_event(leaf_index: int, canonical: bytes) -> LogRestore | None:
    try:
        detail = json.loads(canonical)["detail"]
        root_hash = bytes.fromhex(detail["root_hash"])
        epoch = detail["epoch"]
        tree_size = detail["tree_size"]
        origin = detail["origin"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    if type(epoch) is not int or type(tree_size) is not int or not isinstance(origin, str):
        return None
    lost = Checkpoint(origin=origin, tree_size=tree_size, root_hash=root_hash)
    return LogRestore(epoch=epoch, leaf_index=leaf_index, lost_checkpoint=lost)
