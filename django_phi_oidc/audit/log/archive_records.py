"""What the newest `audit.archived` states: how many leaves are in archives, and which ones have
left the log.
"""

import textwrap
import uuid
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from typing import Any

from ..errors import LogDamaged, ProofInvalid
from ..events import MAX_CHARACTERS, MAX_ITEMS, find_event, parse_detail
from ..merkle.checkpoint import Checkpoint, LogKey
from ..partitions import LEAF_TABLE, Partition, is_partitioned, list_gaps, list_partitions
from ..trusted_transaction import trusted_transaction
from .archive import verify_sealed_event
from .ranges import find_newest_checkpoint
from .reader import read_archive_events

LeafRange = tuple[int, int]
"""The leaves [start, end)."""
Gap = tuple[uuid.UUID, uuid.UUID]
"""The ids [first, end)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveRecord:
    archived_size: int = 0
    """The number of leaves from the first one on that are all in archives."""
    detached_leaves: Mapping[str, Sequence[LeafRange]] = field(default_factory=dict)
    """The leaves of each partition that was detached, by `Partition.suffix`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachedLeaves:
    """The leaves whose partitions are detached now. Any other leaf without a row was deleted."""

    ranges: Sequence[LeafRange] = ()
    """Ascending, without overlaps."""
    gaps: Sequence[Gap] = ()
    """The ids of no partition."""

    def has_leaf(self, index: int) -> bool:
        place = bisect_right(self.ranges, index, key=lambda leaves: leaves[0])
        return place > 0 and index < self.ranges[place - 1][1]

    def has_any(self, start: int, end: int) -> bool:
        """Say whether one of the leaves [start, end) is detached."""
        return any(first < end and start < last for first, last in self.ranges)

    def find_gap(self, event_id: uuid.UUID) -> Gap | None:
        """Return the gap with that id; None if a partition would have its leaf."""
        for first, end in self.gaps:
            if first <= event_id < end:
                return first, end
        return None


def read_archive_record(keys: Sequence[LogKey]) -> ArchiveRecord:
    """Return what the newest event states that is in the tree under the newest checkpoint.

    keys: the public keys of the log. An event without a leaf was not recorded by a process that has
    the signing key, and is ignored.
    Raises: AuditUnavailable.
    """
    with trusted_transaction():
        newest = find_newest_checkpoint(keys)
        if newest is None:
            return ArchiveRecord()
        for row in sorted(read_archive_events(), key=attrgetter("leaf_index"), reverse=True):
            if _is_sealed(row.leaf_index, row.canonical or b"", newest):
                return _parse_record(row.canonical or b"")
    return ArchiveRecord()


def _is_sealed(leaf_index: int, canonical: bytes, checkpoint: Checkpoint) -> bool:
    if not 0 <= leaf_index < checkpoint.tree_size:
        return False
    try:
        verify_sealed_event(canonical, leaf_index, checkpoint)
    except (LogDamaged, ProofInvalid):
        return False
    return True


def _parse_record(canonical: bytes) -> ArchiveRecord:
    event = find_event(canonical)
    if event is None:
        return ArchiveRecord()
    detail = parse_detail(event.detail)
    leaves = _parse_detached_leaves(detail.get("detached_leaves"))
    return ArchiveRecord(archived_size=detail["archived_size"], detached_leaves=leaves)


def find_detached_leaves(record: ArchiveRecord) -> DetachedLeaves:
    """Return those of the recorded leaves whose partitions are still detached; none without
    partitions.
    """
    if not is_partitioned(LEAF_TABLE):
        return DetachedLeaves()
    ranges = sorted(chain.from_iterable(_list_detached(record).values()))
    return DetachedLeaves(ranges=ranges, gaps=list_gaps(LEAF_TABLE))


def build_detached_leaves(
    record: ArchiveRecord, detaching: Mapping[Partition, Sequence[LeafRange]]
) -> list[str]:
    """Return what the next `audit.archived` states: the leaves of partitions that are detached, or
    will be.

    Texts such as `202610:0-340 202611:340-512`, as few as possible: the events of earlier months
    leave, too.
    Raises: LookupError if an event has no room for them.
    """
    leaves = _list_detached(record)
    for partition, detaching_ranges in detaching.items():
        leaves[partition.suffix] = detaching_ranges
    entries = []
    for name, ranges in leaves.items():
        for start, end in ranges:
            entries.append(f"{name}:{start}-{end}")
    items = textwrap.wrap(
        " ".join(entries), MAX_CHARACTERS, break_long_words=False, break_on_hyphens=False
    )
    if len(items) > MAX_ITEMS:
        raise LookupError("The leaves of detached partitions are in too many pieces for an event.")
    return items


def _list_detached(record: ArchiveRecord) -> dict[str, Sequence[LeafRange]]:
    attached = {partition.suffix for partition in list_partitions(LEAF_TABLE)}
    detached = {}
    for name, ranges in record.detached_leaves.items():
        if name not in attached:
            detached[name] = ranges
    return detached


def _parse_detached_leaves(items: Any) -> dict[str, list[LeafRange]]:
    leaves: dict[str, list[LeafRange]] = {}
    for entry in " ".join(map(str, items if isinstance(items, list) else ())).split():
        with suppress(ValueError):
            name, _, ends = entry.partition(":")
            start, end = map(int, ends.split("-"))
            leaves.setdefault(name, []).append((start, end))
    return leaves
