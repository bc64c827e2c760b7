"""Recompute the log from its events, one range between two known roots after the other.

Three things are compared: event and MAC, event and leaf, leaves and signed root. Which two of them
agree shows which one was altered.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from ..errors import LogDamaged
from ..events import is_signed_late
from ..merkle.compact import CompactRange
from ..merkle.rfc6962 import HASH_BYTES, hash_leaf
from ..models import AuditEvent, AuditLeaf, AuditNode
from ..trusted_transaction import trusted_transaction
from .archive_records import DetachedLeaves, Gap
from .findings import FindingKind, LogFinding, VerificationSummary, format_event_id
from .reader import RawEvent, as_bytes, find_canonical_id, read_leaves
from .tree_storage import STORED_LEVELS, find_absent_leaf_hashes, read_compact_range

_MISSING_LEAF_HASH = bytes(HASH_BYTES)
"""Placeholder of a missing leaf: no root can be computed over it."""
_MAX_NAMED_LEAVES = 20
_DISPUTES = {
    (True, True): "Its MAC was changed; the event itself is as it was sealed.",
    (True, False): "Its MAC is not valid.",
    (
        False,
        True,
    ): "It is not what was sealed, but its MAC is valid: the MAC key was used to alter it.",
    (
        False,
        False,
    ): "It or its leaf is not what was sealed: they differ, "
    "and no root shows which of them is wrong.",
}
"""What is known of an event, by whether it matches its leaf, and whether the leaves lead to the
signed root.
"""
_MAX_MISSING_EVENTS = 10_000
CompletedNodes = Mapping[int, tuple[int, Sequence[bytes]]]
"""What `CompactRange.extend` returns."""
StoredNodes = Mapping[tuple[int, int], bytes]
"""Hashes by level and index."""
MacCalculator = Callable[[str, bytes], bytes | None]
"""Key id and canonical bytes to the MAC; None for a key that is not configured."""
ArchivedEventLookup = Callable[[int], bytes | None]
"""Leaf index to the event's canonical bytes in an archive; called in ascending order."""


@dataclass(frozen=True, slots=True)
class KnownRoot:
    """A tree size with a known root."""

    tree_size: int
    root_hash: bytes
    is_witnessed: bool = False
    """From a checkpoint that was kept outside, and not from the log's own."""


@dataclass(slots=True)
class _LeafRange:
    """Consecutive leaves: the hashes of the rows, and those computed from events where they
    differ.
    """

    first_leaf_index: int
    event_ids: list[bytes] = field(default_factory=list)
    leaf_hashes: list[bytes] = field(default_factory=list)
    disputed_hashes: dict[int, bytes] = field(default_factory=dict)
    """By leaf index: the computed hashes of events that match only their leaf, or only their
    MAC.
    """
    missing_indexes: set[int] = field(default_factory=set)
    archived_indexes: dict[Gap, dict[uuid.UUID, int]] = field(default_factory=dict)
    """Of leaves without a row, by the id of their event in an archive."""

    def has_leaf_hash(self, index: int) -> bool:
        """Whether a disputed event matches its leaf."""
        return self.leaf_hashes[index - self.first_leaf_index] == self.disputed_hashes[index]

    def has_gap(self, start: int, end: int) -> bool:
        return any(start <= index < end for index in self.missing_indexes)


class LogReplay:
    """The tree read so far, and whether it matches what was signed."""

    def __init__(
        self,
        tree: CompactRange,
        *,
        compute_mac: MacCalculator,
        find_archived: ArchivedEventLookup,
        summary: VerificationSummary,
        archived_size: int = 0,
        detached_leaves: DetachedLeaves,
    ) -> None:
        """tree: of the leaves before the first one that is read; its root was signed.

        archived_size: before this leaf, events may be missing, because they are in archives.
        detached_leaves: only these may have no row.
        """
        self.tree = tree
        self.missing_events: dict[bytes, tuple[int, bytes]] = {}
        """Leaf hash to leaf index and event id of missing events; at most _MAX_MISSING_EVENTS."""
        self._compute_mac = compute_mac
        self._find_archived = find_archived
        self._summary = summary
        self._archived_size = archived_size
        self._detached_leaves = detached_leaves
        self._is_anchored = True

    def advance(self, end: int, known_roots: Sequence[KnownRoot]) -> Iterator[LogFinding]:
        """Read the leaves up to `end`, and yield findings. known_roots: in ascending order, none
        beyond `end`.
        """
        leaf_range = _LeafRange(first_leaf_index=self.tree.size)
        yield from self._read_leaves(leaf_range, end)
        yield from _report_returned_events(leaf_range)
        with trusted_transaction():
            stored_nodes = _get_stored_nodes(leaf_range.first_leaf_index, end)
        for root in known_roots:
            yield from self._advance_to_root(leaf_range, root, stored_nodes)
        start = self.tree.size
        if start < end:
            self.tree.extend(leaf_range.leaf_hashes[start - leaf_range.first_leaf_index :])
            yield from _report_disputed_events(leaf_range, start, end, root_matches=False)

    def _read_leaves(self, leaf_range: _LeafRange, end: int) -> Iterator[LogFinding]:
        compute_mac = self._compute_mac
        ids = leaf_range.event_ids
        hashes = leaf_range.leaf_hashes
        expected = leaf_range.first_leaf_index
        archived_end = min(end, self._archived_size)
        has_detached = self._detached_leaves.has_any(expected, archived_end)
        # Now, because the connection is not free in the loop.
        if has_detached:
            tile_hashes = find_absent_leaf_hashes(expected, archived_end)
        else:
            tile_hashes = {}

        for row in read_leaves(leaf_range.first_leaf_index, end):
            leaf_index, event_id, leaf_hash, mac_key, mac, canonical, _, _ = row
            if leaf_index < expected:
                text = "There is another row of this leaf or this event."
                yield _build_row_finding(FindingKind.EVENT_ALTERED, row, text)
                continue
            if leaf_index > expected:
                yield from self._add_absent_leaves(
                    leaf_range, expected, min(leaf_index, end), tile_hashes
                )
            expected = leaf_index + 1
            ids.append(event_id)
            hashes.append(leaf_hash if len(leaf_hash) == HASH_BYTES else _MISSING_LEAF_HASH)
            if canonical is None:
                yield from self._report_missing_event(row)
            elif hash_leaf(canonical) != leaf_hash or compute_mac(mac_key, canonical) != mac:
                yield from self._report_difference(leaf_range, row, canonical)
            else:
                self._count_event(canonical)
        if expected < end:
            yield from self._add_absent_leaves(leaf_range, expected, end, tile_hashes)

    def _count_event(self, canonical: bytes) -> None:
        self._summary.events += 1
        if is_signed_late(canonical):
            self._summary.signed_late += 1

    def _add_absent_leaves(
        self, leaf_range: _LeafRange, start: int, end: int, tile_hashes: Mapping[int, bytes]
    ) -> Iterator[LogFinding]:
        """Add leaves without a row: those of detached partitions from the archive or a tile, the
        others as missing.
        """
        missing_from = start
        for index in range(start, end):
            canonical = self._find_archived(index)
            leaf_hash = self._find_detached_leaf(leaf_range, index, canonical, tile_hashes)
            if leaf_hash is None:
                continue
            if missing_from < index:
                yield _add_missing_leaves(leaf_range, missing_from, index)
            missing_from = index + 1
            leaf_range.event_ids.append(b"")
            leaf_range.leaf_hashes.append(leaf_hash)
            if canonical is not None:
                self._count_event(canonical)
                self._summary.archived += 1
        if missing_from < end:
            yield _add_missing_leaves(leaf_range, missing_from, end)

    def _find_detached_leaf(
        self,
        leaf_range: _LeafRange,
        index: int,
        canonical: bytes | None,
        tile_hashes: Mapping[int, bytes],
    ) -> bytes | None:
        """Return the hash of a leaf of a detached partition; None if the leaf should have a row, or
        nothing has it.
        """
        if not self._detached_leaves.has_leaf(index):
            return None
        if canonical is None:
            return tile_hashes.get(index)
        with suppress(ValueError):
            event_id = uuid.UUID(find_canonical_id(canonical))
            if gap := self._detached_leaves.find_gap(event_id):
                leaf_range.archived_indexes.setdefault(gap, {})[event_id] = index
                return hash_leaf(canonical)
        return None

    def _report_difference(
        self, leaf_range: _LeafRange, row: RawEvent, canonical: bytes
    ) -> Iterator[LogFinding]:
        self._count_event(canonical)
        computed = hash_leaf(canonical)
        mac = self._compute_mac(row.mac_key, canonical)
        if computed == row.leaf_hash and mac is None:
            yield _build_row_finding(
                FindingKind.EVENT_KEY_UNKNOWN,
                row,
                f"Its MAC key {row.mac_key!a} is not configured.",
            )
        elif row.leaf_hash == computed or row.mac == mac:
            leaf_range.disputed_hashes[row.leaf_index] = computed
        else:
            yield _build_row_finding(FindingKind.EVENT_ALTERED, row, "It is not what was sealed.")

    def _report_missing_event(self, row: RawEvent) -> Iterator[LogFinding]:
        canonical = self._find_archived(row.leaf_index)
        if canonical is not None and hash_leaf(canonical) == row.leaf_hash:
            self._count_event(canonical)
            self._summary.archived += 1
            return
        if row.leaf_index < self._archived_size:
            return
        if len(self.missing_events) < _MAX_MISSING_EVENTS:
            self.missing_events[row.leaf_hash] = row.leaf_index, row.event_id

        if canonical is None:
            text = "It was sealed, and is gone."
        else:
            text = "It is gone, and the archive has something else."

        yield _build_row_finding(FindingKind.EVENT_MISSING, row, text)

    def _advance_to_root(
        self, leaf_range: _LeafRange, known_root: KnownRoot, stored_nodes: StoredNodes
    ) -> Iterator[LogFinding]:
        """Grow the tree up to the known root, and compare."""
        start = self.tree.size
        nodes_before = self.tree.nodes
        end = known_root.tree_size
        leaves = leaf_range.leaf_hashes[
            start - leaf_range.first_leaf_index : end - leaf_range.first_leaf_index
        ]
        disputed = leaf_range.disputed_hashes
        altered = []
        for index in disputed:
            if start <= index < end and not leaf_range.has_leaf_hash(index):
                altered.append(index)
        nodes = self.tree.extend(leaves, kept_levels=STORED_LEVELS)
        matches = self.tree.compute_root() == known_root.root_hash
        if not matches and altered:
            for index in altered:
                leaves[index - start] = disputed[index]
            tree = CompactRange(start, nodes_before)
            other_nodes = tree.extend(leaves, kept_levels=STORED_LEVELS)
            if tree.compute_root() == known_root.root_hash:
                self.tree = tree
                nodes = other_nodes
                matches = True
                for index in altered:
                    del disputed[index]
                    text = "The hash in its leaf was changed; the event is as it was sealed."
                    yield _build_leaf_finding(leaf_range, index, text)
        yield from _report_disputed_events(leaf_range, start, end, root_matches=matches)
        self._summary.checkpoints += not known_root.is_witnessed
        if matches:
            self._is_anchored = True
            if not known_root.is_witnessed:
                self._summary.verified_size = end
                self._summary.verified_root = known_root.root_hash
            yield from _report_altered_nodes(nodes, stored_nodes)
        elif not known_root.is_witnessed:
            yield from self._report_root_mismatch(
                leaf_range, start, known_root, nodes, stored_nodes
            )
        elif self._is_anchored and not leaf_range.has_gap(start, end):
            text = (
                "A checkpoint that was kept outside has another root for "
                "this size: this log does not continue it."
            )
            yield LogFinding(kind=FindingKind.FORK_UNDECLARED, tree_size=end, text=text)

    def _report_root_mismatch(
        self,
        leaf_range: _LeafRange,
        start: int,
        known_root: KnownRoot,
        nodes: CompletedNodes,
        stored: StoredNodes,
    ) -> Iterator[LogFinding]:
        """Report leaves that do not lead to the signed root, and continue from the stored nodes
        where these do.
        """
        was_anchored = self._is_anchored
        self._is_anchored = False
        end = known_root.tree_size
        with suppress(LogDamaged), trusted_transaction():
            tree = read_compact_range(end)
            if tree.compute_root() == known_root.root_hash:
                self.tree = tree
                self._is_anchored = True
        if not was_anchored or leaf_range.has_gap(start, end):
            # An earlier finding reported the cause, or that nothing is known from there on.
            return
        blocks = []
        for index, node in _enumerate_level(nodes, 8):
            if stored.get((8, index), node) != node:
                blocks.append(index)
        where = f"leaves {start} to {end - 1}"
        if blocks and self._is_anchored:
            where = ", ".join(f"leaves {index * 256} to {index * 256 + 255}" for index in blocks)
        text = (
            f"The {where} do not lead to the root that was "
            f"signed.{_describe_moved_leaves(leaf_range, start, end)}"
        )
        yield LogFinding(kind=FindingKind.EVENT_ALTERED, tree_size=end, leaf_index=start, text=text)


def _report_returned_events(leaf_range: _LeafRange) -> Iterator[LogFinding]:
    """Report ids of archived events without a leaf that the log has again: a second event of an id
    can be another.
    """
    for indexes in leaf_range.archived_indexes.values():
        bounds = min(indexes), max(indexes)
        with trusted_transaction():
            stored = {
                *AuditLeaf.objects.filter(event_id__range=bounds).values_list(
                    "event_id", flat=True
                ),
                *AuditEvent.objects.filter(id__range=bounds).values_list("id", flat=True),
            }
        for event_id in sorted(stored & indexes.keys()):
            text = "The log has an event with this id again, although its partition was detached."
            kind = FindingKind.EVENT_ALTERED
            index = indexes[event_id]
            yield LogFinding(kind=kind, leaf_index=index, event_id=str(event_id), text=text)


def _get_stored_nodes(start: int, end: int) -> dict[tuple[int, int], bytes]:
    """Return the stored nodes that the leaves [start, end) complete, by level and index."""
    stored_nodes = {}
    for level in STORED_LEVELS:
        if end >> level > start >> level:
            for index, node_hash in AuditNode.objects.filter(
                level=level, node_index__gte=start >> level, node_index__lt=end >> level
            ).values_list("node_index", "node_hash"):
                stored_nodes[(level, index)] = as_bytes(node_hash)
    return stored_nodes


def _report_altered_nodes(nodes: CompletedNodes, stored_nodes: StoredNodes) -> Iterator[LogFinding]:
    for level in nodes:
        for index, computed in _enumerate_level(nodes, level):
            if stored_nodes.get((level, index)) != computed:
                if (level, index) not in stored_nodes:
                    what = "is missing"
                else:
                    what = "was changed"

                text = (
                    f"The stored node {index} of level {level} {what}; "
                    "the leaves are as they were signed."
                )
                yield LogFinding(
                    kind=FindingKind.TREE_ALTERED, leaf_index=index << level, text=text
                )


def _enumerate_level(nodes: CompletedNodes, level: int) -> Iterator[tuple[int, bytes]]:
    first, hashes = nodes.get(level, (0, ()))
    return enumerate(hashes, start=first)


def _describe_moved_leaves(leaf_range: _LeafRange, start: int, end: int) -> str:
    """Return which leaves are not in the sequencer's order: by event id, under each checkpoint."""
    ids = leaf_range.event_ids[
        start - leaf_range.first_leaf_index : end - leaf_range.first_leaf_index
    ]
    if not all(ids):
        # A leaf without a row has no id.
        return ""
    moved = []
    for place, (id_, expected) in enumerate(zip(ids, sorted(ids), strict=True)):
        if id_ != expected:
            moved.append(place)
    if len(moved) > 2:
        moved = []
        for place in range(1, len(ids)):
            if ids[place] <= ids[place - 1]:
                moved.append(place)
    names = []
    for place in moved[:_MAX_NAMED_LEAVES]:
        names.append(f"{start + place} (event {format_event_id(ids[place])})")
    if names:
        return f" Not in their order: the leaves {', '.join(names)}."
    return ""


def _add_missing_leaves(leaf_range: _LeafRange, start: int, end: int) -> LogFinding:
    leaf_range.missing_indexes.update(range(start, end))
    leaf_range.event_ids += [b""] * (end - start)
    leaf_range.leaf_hashes += [_MISSING_LEAF_HASH] * (end - start)

    if end == start + 1:
        text = "The leaf is gone."
    else:
        text = f"The leaves {start} to {end - 1} are gone."

    return LogFinding(kind=FindingKind.EVENT_MISSING, leaf_index=start, text=text)


def _report_disputed_events(
    leaf_range: _LeafRange, start: int, end: int, *, root_matches: bool
) -> Iterator[LogFinding]:
    """Yield findings for events in [start, end) that match only their MAC, or only their leaf."""
    for index in sorted(index for index in leaf_range.disputed_hashes if start <= index < end):
        text = _DISPUTES[leaf_range.has_leaf_hash(index), root_matches]
        yield _build_leaf_finding(leaf_range, index, text)


def _build_leaf_finding(leaf_range: _LeafRange, index: int, text: str) -> LogFinding:
    event_id = format_event_id(leaf_range.event_ids[index - leaf_range.first_leaf_index])
    return LogFinding(
        kind=FindingKind.EVENT_ALTERED, leaf_index=index, event_id=event_id, text=text
    )


def _build_row_finding(kind: FindingKind, row: RawEvent, text: str) -> LogFinding:
    return LogFinding(
        kind=kind, text=text, event_id=format_event_id(row.event_id), leaf_index=row.leaf_index
    )
