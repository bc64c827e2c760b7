"""The log, computed again from its events, one stretch between two checkpoints after the other.

Three things are held against each other: the event and its MAC, the event and its leaf, the leaves and what was signed
over them. Which two of them agree tells which one was altered.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..merkle.compact import CompactRange
from ..merkle.rfc6962 import HASH_BYTES, leaf_hash
from .findings import Finding, Kind, Tally, id_text
from .models import AuditNode
from .nodes import KEPT_LEVELS, LogDamaged, range_at
from .reading import RawEvent, raw, read_leaves

_NOT_A_HASH = bytes(HASH_BYTES)
"""Stands for a leaf that is not there: no root can be computed over it."""
_MOST_MOVED = 2
_MOST_MISSING = 10_000
Completed = Mapping[int, tuple[int, Sequence[bytes]]]
"""What `CompactRange.extend` returns."""
Archived = Callable[[int], bytes | None]
"""Leaf index to the event's canonical bytes, out of an archive; to be asked in ascending order."""


@dataclass(frozen=True, slots=True)
class Stop:
    """A size at which the root is known."""

    tree_size: int
    root_hash: bytes
    outside: bool = False
    """It is not the log's own checkpoint, but one that was kept elsewhere."""


@dataclass(slots=True)
class _Stretch:
    """Leaves in their order: those of the rows, and in `computed` what their events say where that differs."""

    first: int
    ids: list[bytes] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    computed: dict[int, bytes] = field(default_factory=dict)
    """By leaf index: an event whose MAC fits and whose leaf does not."""
    remade: set[int] = field(default_factory=set)
    """Leaf indexes of events whose leaf fits and whose MAC does not."""
    gaps: set[int] = field(default_factory=set)

    def has_gap(self, start: int, end: int) -> bool:
        return any(start <= index < end for index in self.gaps)


class Retracing:
    """The tree so far, and whether it is what was signed."""

    def __init__(self, *, compute_mac: Callable[[str, bytes], bytes | None], archived: Archived, tally: Tally) -> None:
        self.tree = CompactRange()
        self.missing: dict[bytes, tuple[int, bytes]] = {}
        """Leaf hash to leaf index and event id, of events that are not there; some thousand at most."""
        self._compute_mac = compute_mac
        self._archived = archived
        self._tally = tally
        self._anchored = True

    def go_on(self, end: int, stops: Sequence[Stop]) -> Iterator[Finding]:
        """Read the leaves up to end, and yield what is wrong with them. stops: in ascending order, none beyond end."""
        stretch = _Stretch(first=self.tree.size)
        yield from self._read(stretch, end)
        kept = _kept_nodes(stretch.first, end)
        for stop in stops:
            yield from self._advance(stretch, stop, kept)
        start = self.tree.size
        if start < end:
            self.tree.extend(stretch.hashes[start - stretch.first :])
            yield from _doubts(stretch, start, end, fits=False)

    def _read(self, stretch: _Stretch, end: int) -> Iterator[Finding]:
        compute_mac, ids, hashes = self._compute_mac, stretch.ids, stretch.hashes
        expected = stretch.first
        for row in read_leaves(stretch.first, end):
            leaf_index, event_id, sealed, mac_key, mac, canonical = row
            if leaf_index < expected:
                yield _about(Kind.EVENT_DUPLICATE, row, "There is another row of this leaf or this event.")
                continue
            if leaf_index > expected:
                yield _gap(stretch, expected, leaf_index)
            expected = leaf_index + 1
            ids.append(event_id)
            hashes.append(sealed if len(sealed) == HASH_BYTES else _NOT_A_HASH)
            if canonical is None:
                yield from self._is_missing(row)
            elif leaf_hash(canonical) != sealed or compute_mac(mac_key, canonical) != mac:
                yield from self._differs(stretch, row, canonical)
            else:
                self._tally.events += 1
        if expected < end:
            yield _gap(stretch, expected, end)

    def _differs(self, stretch: _Stretch, row: RawEvent, canonical: bytes) -> Iterator[Finding]:
        self._tally.events += 1
        computed = leaf_hash(canonical)
        mac = self._compute_mac(row.mac_key, canonical)
        if computed == row.leaf_hash and mac is None:
            yield _about(Kind.EVENT_KEY_UNKNOWN, row, f"Its MAC key {row.mac_key!a} is not configured.")
        elif computed == row.leaf_hash:
            stretch.remade.add(row.leaf_index)
        elif mac == row.mac:
            stretch.computed[row.leaf_index] = computed
        else:
            yield _about(Kind.EVENT_ALTERED, row, "It is not what was sealed.")

    def _is_missing(self, row: RawEvent) -> Iterator[Finding]:
        canonical = self._archived(row.leaf_index)
        if canonical is not None and leaf_hash(canonical) == row.leaf_hash:
            self._tally.events += 1
            self._tally.archived += 1
            return
        if len(self.missing) < _MOST_MISSING:
            self.missing[row.leaf_hash] = row.leaf_index, row.event_id
        text = "It was sealed, and is gone." if canonical is None else "It is gone, and the archive has something else."
        yield _about(Kind.EVENT_MISSING, row, text)

    def _advance(self, stretch: _Stretch, stop: Stop, kept: Mapping[tuple[int, int], bytes]) -> Iterator[Finding]:
        """Grow the tree up to the stop, and compare."""
        start, before = self.tree.size, self.tree.nodes
        leaves = stretch.hashes[start - stretch.first : stop.tree_size - stretch.first]
        suspects = [index for index in stretch.computed if start <= index < stop.tree_size]
        nodes = self.tree.extend(leaves, kept=KEPT_LEVELS)
        fits = self.tree.root() == stop.root_hash
        if not fits and suspects:
            for index in suspects:
                leaves[index - start] = stretch.computed[index]
            tree = CompactRange(start, before)
            others = tree.extend(leaves, kept=KEPT_LEVELS)
            if tree.root() == stop.root_hash:
                self.tree, nodes, fits = tree, others, True
                for index in suspects:
                    del stretch.computed[index]
                    yield _leaf_altered(stretch, index)
        yield from _doubts(stretch, start, stop.tree_size, fits=fits)
        self._tally.checkpoints += not stop.outside
        if fits:
            self._anchored = True
            yield from _altered_nodes(nodes, kept)
        elif not stop.outside:
            yield from self._mismatch(stretch, start, stop, nodes, kept)
        elif self._anchored and not stretch.has_gap(start, stop.tree_size):
            yield _fork(stop)

    def _mismatch(
        self, stretch: _Stretch, start: int, stop: Stop, nodes: Completed, kept: Mapping[tuple[int, int], bytes]
    ) -> Iterator[Finding]:
        """Say where the leaves do not lead to the signed root, and go on from the kept nodes where those do."""
        was_anchored, self._anchored = self._anchored, False
        try:
            tree = range_at(stop.tree_size)
        except LogDamaged:
            pass
        else:
            if tree.root() == stop.root_hash:
                self.tree, self._anchored = tree, True
        if not was_anchored or stretch.has_gap(start, stop.tree_size):
            # It was said before what is wrong, or that nothing can be said from there on.
            return
        blocks = [index for index, found in _of_level(nodes, 8) if kept.get((8, index), found) != found]
        where = f"leaves {start} to {stop.tree_size - 1}"
        if blocks and self._anchored:
            where = ", ".join(f"leaves {index * 256} to {index * 256 + 255}" for index in blocks)
        yield Finding(
            kind=Kind.ROOT_MISMATCH,
            tree_size=stop.tree_size,
            leaf_index=start,
            text=f"The {where} do not lead to the root that was signed.",
        )
        yield from _moved(stretch, start, stop.tree_size)


def _kept_nodes(start: int, end: int) -> dict[tuple[int, int], bytes]:
    """Return the kept nodes that the leaves [start, end) complete, by level and index."""
    return {
        (level, index): raw(node_hash)
        for level in KEPT_LEVELS
        if end >> level > start >> level
        for index, node_hash in AuditNode.objects.filter(
            level=level, node_index__gte=start >> level, node_index__lt=end >> level
        ).values_list("node_index", "node_hash")
    }


def _altered_nodes(nodes: Completed, kept: Mapping[tuple[int, int], bytes]) -> Iterator[Finding]:
    for level in nodes:
        for index, computed in _of_level(nodes, level):
            if kept.get((level, index)) != computed:
                what = "is missing" if (level, index) not in kept else "was changed"
                yield Finding(
                    kind=Kind.NODE_ALTERED,
                    leaf_index=index << level,
                    text=f"The kept node {index} of level {level} {what}; the leaves are as they were signed.",
                )


def _of_level(nodes: Completed, level: int) -> Iterator[tuple[int, bytes]]:
    first, hashes = nodes.get(level, (0, ()))
    return enumerate(hashes, start=first)


def _moved(stretch: _Stretch, start: int, end: int) -> Iterator[Finding]:
    """Yield the leaves that are not where the sealer puts them: by event id, under each checkpoint."""
    ids = stretch.ids[start - stretch.first : end - stretch.first]
    moved = [place for place, (found, wanted) in enumerate(zip(ids, sorted(ids), strict=True)) if found != wanted]
    if len(moved) > _MOST_MOVED:
        moved = [place for place in range(1, len(ids)) if ids[place] <= ids[place - 1]]
    for place in moved:
        yield Finding(
            kind=Kind.LEAF_OUT_OF_ORDER,
            leaf_index=start + place,
            event_id=id_text(ids[place]),
            tree_size=end,
            text="Its leaf is not in its place among those that were sealed with it.",
        )


def _gap(stretch: _Stretch, start: int, end: int) -> Finding:
    stretch.gaps.update(range(start, end))
    stretch.ids += [b""] * (end - start)
    stretch.hashes += [_NOT_A_HASH] * (end - start)
    what = "The leaf is gone." if end == start + 1 else f"The leaves {start} to {end - 1} are gone."
    return Finding(kind=Kind.LEAF_MISSING, leaf_index=start, text=what)


def _doubts(stretch: _Stretch, start: int, end: int, *, fits: bool) -> Iterator[Finding]:
    """Yield what the root has to say of the events in [start, end) that agree with their MAC, or their leaf, alone."""
    for index in sorted(stretch.computed):
        if start <= index < end:
            text = (
                "It is not what was sealed, though its MAC fits: somebody has the MAC key."
                if fits
                else "It or its leaf is not what was sealed: they differ, and no root tells which."
            )
            yield _of_leaf(Kind.EVENT_ALTERED, stretch, index, text)
    for index in sorted(stretch.remade):
        if start <= index < end:
            text = "Its MAC was changed; the event itself is as it was sealed." if fits else "Its MAC does not fit."
            yield _of_leaf(Kind.EVENT_ALTERED, stretch, index, text)


def _leaf_altered(stretch: _Stretch, index: int) -> Finding:
    text = "The hash in its leaf was changed; the event is as it was sealed."
    return _of_leaf(Kind.LEAF_ALTERED, stretch, index, text)


def _of_leaf(kind: Kind, stretch: _Stretch, index: int, text: str) -> Finding:
    return Finding(kind=kind, leaf_index=index, event_id=id_text(stretch.ids[index - stretch.first]), text=text)


def _fork(stop: Stop) -> Finding:
    return Finding(
        kind=Kind.FORK_UNDECLARED,
        tree_size=stop.tree_size,
        text="A checkpoint that was kept outside has another root for this size: the log is not its continuation.",
    )


def _about(kind: Kind, row: RawEvent, text: str) -> Finding:
    return Finding(kind=kind, text=text, event_id=id_text(row.event_id), leaf_index=row.leaf_index)
