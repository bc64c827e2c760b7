"""The log, computed again from its events, one stretch between two checkpoints after the other.

Three things are held against each other: the event and its MAC, the event and its leaf, the leaves and what was signed
over them. Which two of them agree tells which one was altered.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ...merkle.compact import CompactRange
from ...merkle.rfc6962 import HASH_BYTES, hash_leaf
from ..models import AuditNode
from .findings import FindingKind, LogFinding, VerificationSummary, format_event_id
from .reader import RawEvent, as_bytes, read_leaves
from .tree_storage import STORED_LEVELS, LogDamaged, read_compact_range

_MISSING_LEAF_HASH = bytes(HASH_BYTES)
"""Stands for a leaf that is not there: no root can be computed over it."""
_MAX_MOVED_LEAVES = 2
_MAX_MISSING_EVENTS = 10_000
CompletedNodes = Mapping[int, tuple[int, Sequence[bytes]]]
"""What `CompactRange.extend` returns."""
ArchivedEventLookup = Callable[[int], bytes | None]
"""Leaf index to the event's canonical bytes, out of an archive; to be asked in ascending order."""


@dataclass(frozen=True, slots=True)
class KnownRoot:
    """A size at which the root is known."""

    tree_size: int
    root_hash: bytes
    is_witnessed: bool = False
    """It is not the log's own checkpoint, but one that was kept elsewhere."""


@dataclass(slots=True)
class _LeafRange:
    """Leaves in their order: those of the rows, and in `computed` what their events say where that differs."""

    first_leaf_index: int
    event_ids: list[bytes] = field(default_factory=list)
    leaf_hashes: list[bytes] = field(default_factory=list)
    computed_hashes: dict[int, bytes] = field(default_factory=dict)
    """By leaf index: an event whose MAC fits and whose leaf does not."""
    invalid_mac_indexes: set[int] = field(default_factory=set)
    """Leaf indexes of events whose leaf fits and whose MAC does not."""
    missing_indexes: set[int] = field(default_factory=set)

    def has_gap(self, start: int, end: int) -> bool:
        return any(start <= index < end for index in self.missing_indexes)


class LogReplay:
    """The tree so far, and whether it is what was signed."""

    def __init__(
        self,
        *,
        compute_mac: Callable[[str, bytes], bytes | None],
        find_archived: ArchivedEventLookup,
        summary: VerificationSummary,
    ) -> None:
        self.tree = CompactRange()
        self.missing_events: dict[bytes, tuple[int, bytes]] = {}
        """Leaf hash to leaf index and event id, of events that are not there; some thousand at most."""
        self._compute_mac = compute_mac
        self._find_archived = find_archived
        self._summary = summary
        self._is_anchored = True

    def advance(self, end: int, known_roots: Sequence[KnownRoot]) -> Iterator[LogFinding]:
        """Read the leaves up to end, and yield what is wrong with them. stops: in ascending order, none beyond end."""
        stretch = _LeafRange(first_leaf_index=self.tree.size)
        yield from self._read_leaves(stretch, end)
        kept = _get_stored_nodes(stretch.first_leaf_index, end)
        for stop in known_roots:
            yield from self._advance_to_root(stretch, stop, kept)
        start = self.tree.size
        if start < end:
            self.tree.extend(stretch.leaf_hashes[start - stretch.first_leaf_index :])
            yield from _report_disputed_events(stretch, start, end, root_matches=False)

    def _read_leaves(self, leaf_range: _LeafRange, end: int) -> Iterator[LogFinding]:
        compute_mac, ids, hashes = self._compute_mac, leaf_range.event_ids, leaf_range.leaf_hashes
        expected = leaf_range.first_leaf_index
        for row in read_leaves(leaf_range.first_leaf_index, end):
            leaf_index, event_id, sealed, mac_key, mac, canonical = row
            if leaf_index < expected:
                yield _build_row_finding(
                    FindingKind.EVENT_DUPLICATE, row, "There is another row of this leaf or this event."
                )
                continue
            if leaf_index > expected:
                yield _add_missing_leaves(leaf_range, expected, leaf_index)
            expected = leaf_index + 1
            ids.append(event_id)
            hashes.append(sealed if len(sealed) == HASH_BYTES else _MISSING_LEAF_HASH)
            if canonical is None:
                yield from self._report_missing_event(row)
            elif hash_leaf(canonical) != sealed or compute_mac(mac_key, canonical) != mac:
                yield from self._report_difference(leaf_range, row, canonical)
            else:
                self._summary.events += 1
        if expected < end:
            yield _add_missing_leaves(leaf_range, expected, end)

    def _report_difference(self, leaf_range: _LeafRange, row: RawEvent, canonical: bytes) -> Iterator[LogFinding]:
        self._summary.events += 1
        computed = hash_leaf(canonical)
        mac = self._compute_mac(row.mac_key, canonical)
        if computed == row.leaf_hash and mac is None:
            yield _build_row_finding(
                FindingKind.EVENT_KEY_UNKNOWN, row, f"Its MAC key {row.mac_key!a} is not configured."
            )
        elif computed == row.leaf_hash:
            leaf_range.invalid_mac_indexes.add(row.leaf_index)
        elif mac == row.mac:
            leaf_range.computed_hashes[row.leaf_index] = computed
        else:
            yield _build_row_finding(FindingKind.EVENT_ALTERED, row, "It is not what was sealed.")

    def _report_missing_event(self, row: RawEvent) -> Iterator[LogFinding]:
        canonical = self._find_archived(row.leaf_index)
        if canonical is not None and hash_leaf(canonical) == row.leaf_hash:
            self._summary.events += 1
            self._summary.archived += 1
            return
        if len(self.missing_events) < _MAX_MISSING_EVENTS:
            self.missing_events[row.leaf_hash] = row.leaf_index, row.event_id
        text = "It was sealed, and is gone." if canonical is None else "It is gone, and the archive has something else."
        yield _build_row_finding(FindingKind.EVENT_MISSING, row, text)

    def _advance_to_root(
        self, leaf_range: _LeafRange, known_root: KnownRoot, stored_nodes: Mapping[tuple[int, int], bytes]
    ) -> Iterator[LogFinding]:
        """Grow the tree up to the stop, and compare."""
        start, before = self.tree.size, self.tree.nodes
        leaves = leaf_range.leaf_hashes[
            start - leaf_range.first_leaf_index : known_root.tree_size - leaf_range.first_leaf_index
        ]
        suspects = [index for index in leaf_range.computed_hashes if start <= index < known_root.tree_size]
        nodes = self.tree.extend(leaves, kept_levels=STORED_LEVELS)
        fits = self.tree.compute_root() == known_root.root_hash
        if not fits and suspects:
            for index in suspects:
                leaves[index - start] = leaf_range.computed_hashes[index]
            tree = CompactRange(start, before)
            others = tree.extend(leaves, kept_levels=STORED_LEVELS)
            if tree.compute_root() == known_root.root_hash:
                self.tree, nodes, fits = tree, others, True
                for index in suspects:
                    del leaf_range.computed_hashes[index]
                    yield _build_altered_leaf_finding(leaf_range, index)
        yield from _report_disputed_events(leaf_range, start, known_root.tree_size, root_matches=fits)
        self._summary.checkpoints += not known_root.is_witnessed
        if fits:
            self._is_anchored = True
            yield from _report_altered_nodes(nodes, stored_nodes)
        elif not known_root.is_witnessed:
            yield from self._report_root_mismatch(leaf_range, start, known_root, nodes, stored_nodes)
        elif self._is_anchored and not leaf_range.has_gap(start, known_root.tree_size):
            yield _build_fork_finding(known_root)

    def _report_root_mismatch(
        self,
        leaf_range: _LeafRange,
        start: int,
        known_root: KnownRoot,
        nodes: CompletedNodes,
        stored_nodes: Mapping[tuple[int, int], bytes],
    ) -> Iterator[LogFinding]:
        """Say where the leaves do not lead to the signed root, and go on from the kept nodes where those do."""
        was_anchored, self._is_anchored = self._is_anchored, False
        try:
            tree = read_compact_range(known_root.tree_size)
        except LogDamaged:
            pass
        else:
            if tree.compute_root() == known_root.root_hash:
                self.tree, self._is_anchored = tree, True
        if not was_anchored or leaf_range.has_gap(start, known_root.tree_size):
            # It was said before what is wrong, or that nothing can be said from there on.
            return
        blocks = [index for index, found in _enumerate_level(nodes, 8) if stored_nodes.get((8, index), found) != found]
        where = f"leaves {start} to {known_root.tree_size - 1}"
        if blocks and self._is_anchored:
            where = ", ".join(f"leaves {index * 256} to {index * 256 + 255}" for index in blocks)
        yield LogFinding(
            kind=FindingKind.ROOT_MISMATCH,
            tree_size=known_root.tree_size,
            leaf_index=start,
            text=f"The {where} do not lead to the root that was signed.",
        )
        yield from _report_moved_leaves(leaf_range, start, known_root.tree_size)


def _get_stored_nodes(start: int, end: int) -> dict[tuple[int, int], bytes]:
    """Return the kept nodes that the leaves [start, end) complete, by level and index."""
    return {
        (level, index): as_bytes(node_hash)
        for level in STORED_LEVELS
        if end >> level > start >> level
        for index, node_hash in AuditNode.objects.filter(
            level=level, node_index__gte=start >> level, node_index__lt=end >> level
        ).values_list("node_index", "node_hash")
    }


def _report_altered_nodes(nodes: CompletedNodes, stored_nodes: Mapping[tuple[int, int], bytes]) -> Iterator[LogFinding]:
    for level in nodes:
        for index, computed in _enumerate_level(nodes, level):
            if stored_nodes.get((level, index)) != computed:
                what = "is missing" if (level, index) not in stored_nodes else "was changed"
                yield LogFinding(
                    kind=FindingKind.NODE_ALTERED,
                    leaf_index=index << level,
                    text=f"The kept node {index} of level {level} {what}; the leaves are as they were signed.",
                )


def _enumerate_level(nodes: CompletedNodes, level: int) -> Iterator[tuple[int, bytes]]:
    first, hashes = nodes.get(level, (0, ()))
    return enumerate(hashes, start=first)


def _report_moved_leaves(leaf_range: _LeafRange, start: int, end: int) -> Iterator[LogFinding]:
    """Yield the leaves that are not where the sealer puts them: by event id, under each checkpoint."""
    ids = leaf_range.event_ids[start - leaf_range.first_leaf_index : end - leaf_range.first_leaf_index]
    moved = [place for place, (found, wanted) in enumerate(zip(ids, sorted(ids), strict=True)) if found != wanted]
    if len(moved) > _MAX_MOVED_LEAVES:
        moved = [place for place in range(1, len(ids)) if ids[place] <= ids[place - 1]]
    for place in moved:
        yield LogFinding(
            kind=FindingKind.LEAF_OUT_OF_ORDER,
            leaf_index=start + place,
            event_id=format_event_id(ids[place]),
            tree_size=end,
            text="Its leaf is not in its place among those that were sealed with it.",
        )


def _add_missing_leaves(leaf_range: _LeafRange, start: int, end: int) -> LogFinding:
    leaf_range.missing_indexes.update(range(start, end))
    leaf_range.event_ids += [b""] * (end - start)
    leaf_range.leaf_hashes += [_MISSING_LEAF_HASH] * (end - start)
    what = "The leaf is gone." if end == start + 1 else f"The leaves {start} to {end - 1} are gone."
    return LogFinding(kind=FindingKind.LEAF_MISSING, leaf_index=start, text=what)


def _report_disputed_events(
    leaf_range: _LeafRange, start: int, end: int, *, root_matches: bool
) -> Iterator[LogFinding]:
    """Yield what the root has to say of the events in [start, end) that agree with their MAC, or their leaf, alone."""
    for index in sorted(leaf_range.computed_hashes):
        if start <= index < end:
            text = (
                "It is not what was sealed, though its MAC fits: somebody has the MAC key."
                if root_matches
                else "It or its leaf is not what was sealed: they differ, and no root tells which."
            )
            yield _build_leaf_finding(FindingKind.EVENT_ALTERED, leaf_range, index, text)
    for index in sorted(leaf_range.invalid_mac_indexes):
        if start <= index < end:
            text = (
                "Its MAC was changed; the event itself is as it was sealed."
                if root_matches
                else "Its MAC does not fit."
            )
            yield _build_leaf_finding(FindingKind.EVENT_ALTERED, leaf_range, index, text)


def _build_altered_leaf_finding(leaf_range: _LeafRange, index: int) -> LogFinding:
    text = "The hash in its leaf was changed; the event is as it was sealed."
    return _build_leaf_finding(FindingKind.LEAF_ALTERED, leaf_range, index, text)


def _build_leaf_finding(kind: FindingKind, leaf_range: _LeafRange, index: int, text: str) -> LogFinding:
    return LogFinding(
        kind=kind,
        leaf_index=index,
        event_id=format_event_id(leaf_range.event_ids[index - leaf_range.first_leaf_index]),
        text=text,
    )


def _build_fork_finding(known_root: KnownRoot) -> LogFinding:
    return LogFinding(
        kind=FindingKind.FORK_UNDECLARED,
        tree_size=known_root.tree_size,
        text="A checkpoint that was kept outside has another root for this size: the log is not its continuation.",
    )


def _build_row_finding(kind: FindingKind, row: RawEvent, text: str) -> LogFinding:
    return LogFinding(kind=kind, text=text, event_id=format_event_id(row.event_id), leaf_index=row.leaf_index)
