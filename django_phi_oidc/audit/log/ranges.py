"""Ranges of the log that are verified by themselves: what is new, a random share, or the next part
of a schedule.

A range begins and ends at signed checkpoints. The tree before it is read from the stored nodes,
which are not trusted: they must lead to the signed root of the checkpoint at which the range
begins.
"""

import math
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from ..._internal.randomness import token_bytes
from ..errors import CheckpointInvalid, LogDamaged, ProofInvalid
from ..merkle.checkpoint import Checkpoint, LogKey, verify_checkpoint
from ..merkle.compact import CompactRange
from ..merkle.proof import build_consistency_proof, verify_consistency
from ..merkle.rfc6962 import MAX_TREE_SIZE
from ..trusted_transaction import trusted_transaction
from .reader import RawCheckpoint, read_checkpoints, read_event_id
from .signing_keys import find_epoch, get_checkpoint_origin
from .tree_storage import read_compact_range, read_nodes

LEAVES_PER_PART = 50_000
"""As many as a checkpoint covers at most."""
_MIN_PART_COUNT = 1_000
"""The parts of a log with few events are smaller."""
Part = tuple[int, int]
"""The leaves [start, end)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRange:
    """The leaves [tree.size, end_size), and the events with ids in [first_id, end_id) that have no
    leaf.
    """

    epoch: int = 1
    """Of the checkpoint before the range."""
    tree: CompactRange = field(default_factory=CompactRange)
    """The tree before the range, whose root was signed."""
    end_size: int | None = None
    """Of a checkpoint; None for the end of the log."""
    first_id: uuid.UUID | None = None
    end_id: uuid.UUID | None = None
    """None: without that bound."""


def get_range_after(checkpoint: Checkpoint, *, first_id: uuid.UUID | None = None) -> LogRange:
    """Return the range from a checkpoint, whose signature the caller has verified, to the end of
    the log.

    Raises: LogDamaged if the stored nodes do not lead to that checkpoint.
    """
    with trusted_transaction():
        tree = read_compact_range(checkpoint.tree_size)
    epoch = find_epoch(checkpoint.origin)
    if epoch is None or tree.compute_root() != checkpoint.root_hash:
        raise LogDamaged(
            f"The stored nodes do not lead to the checkpoint of {checkpoint.tree_size} events."
        )
    return LogRange(epoch=epoch, tree=tree, first_id=first_id)


def get_range_of_part(part: Part, keys: Sequence[LogKey]) -> LogRange:
    """Return the smallest range between signed checkpoints that has the leaves of the part, up to
    the newest one.

    Raises: LogDamaged if the stored nodes do not lead to the checkpoint before it.
    """
    before = find_checkpoint_at_most(part[0], keys)
    after = find_checkpoint_at_least(part[1], keys)

    if before:
        log_range = get_range_after(before)
    else:
        log_range = LogRange()

    is_last = after is None or not read_checkpoints(after.tree_size, limit=1)

    # Neighbours have this id in common. So no event is between them, although late events have old
    # ids.
    first_id = None
    if before:
        first_id = read_event_id(before.tree_size)

    end_size = None
    end_id = None
    if after:
        end_size = after.tree_size
        if not is_last:
            end_id = read_event_id(after.tree_size)

    return LogRange(
        epoch=log_range.epoch,
        tree=log_range.tree,
        end_size=end_size,
        first_id=first_id,
        end_id=end_id,
    )


def align_part(part: Part, keys: Sequence[LogKey]) -> Part:
    """Return the part between checkpoints that `get_range_of_part` reads."""
    before = find_checkpoint_at_most(part[0], keys)
    after = find_checkpoint_at_least(part[1], keys)

    start, end = part
    if before:
        start = before.tree_size
    else:
        start = 0
    if after:
        end = after.tree_size
    return start, end


def draw_sample(share: float, tree_size: int) -> list[Part]:
    """Return random parts of the leaves [0, tree_size), in ascending order, with about that share
    of all leaves.

    Requires: 0 < share <= 1.
    """
    if not tree_size:
        return []
    length = max(1, min(LEAVES_PER_PART, tree_size // _MIN_PART_COUNT))
    part_count = math.ceil(tree_size / length)
    # The parts with the smallest of random keys: each subset is equally likely.
    drawn = sorted(range(part_count), key=lambda _: token_bytes(8))[: math.ceil(share * part_count)]
    sample = []
    for part in sorted(drawn):
        sample.append((part * length, min((part + 1) * length, tree_size)))
    return sample


def draw_start(tree_size: int) -> int:
    """Return a random leaf index. Requires: tree_size > 0."""
    return int.from_bytes(token_bytes(16), "big") % tree_size


def find_newest_checkpoint(keys: Sequence[LogKey]) -> Checkpoint | None:
    """Return the largest valid checkpoint."""
    return find_checkpoint_at_most(MAX_TREE_SIZE - 1, keys)


def find_checkpoint_at_most(size: int, keys: Sequence[LogKey]) -> Checkpoint | None:
    """Return the largest valid checkpoint of at most that size."""
    below_size = size + 1
    while below_size > 0 and (
        rows := read_checkpoints(0, limit=1, newest_first=True, below_size=below_size)
    ):
        with suppress(CheckpointInvalid):
            return verify_row(rows[0], keys)
        # It must decrease in each round: the size of the first checkpoint has no upper bound.
        below_size = min(rows[0].tree_size, below_size - 1)
    return None


def find_checkpoint_at_least(size: int, keys: Sequence[LogKey]) -> Checkpoint | None:
    """Return the smallest valid checkpoint of at least that size."""
    while rows := read_checkpoints(size - 1, limit=1):
        with suppress(CheckpointInvalid):
            return verify_row(rows[0], keys)
        size = rows[0].tree_size + 1
    return None


def verify_row(row: RawCheckpoint, keys: Sequence[LogKey]) -> Checkpoint:
    """Return the checkpoint that was signed. NOT checked: the root in the row. Raises:
    CheckpointInvalid.
    """
    checkpoint = verify_checkpoint(row.note, keys, expected_origin=get_checkpoint_origin(row.epoch))
    if checkpoint.tree_size != row.tree_size:
        raise CheckpointInvalid("Its size is not the one that was signed.")
    return checkpoint


def is_continued(old_size: int, old_root: bytes, *, size: int, root_hash: bytes) -> bool:
    """Return whether the stored nodes, which are not trusted, prove that a tree continues an older
    one.

    Spec: RFC 6962 2.1.2.
    """
    try:
        with trusted_transaction():
            proof = build_consistency_proof(old_size, size, read_nodes)
        verify_consistency(
            old_size=old_size, old_root=old_root, new_size=size, new_root=root_hash, proof=proof
        )
    except (LogDamaged, ProofInvalid, ValueError):
        return False
    return True
