"""Verify an exported file of JSON lines: each line is what was sealed, and no event of the log is
missing.

A line is verified as a leaf of the tree, up to the root of the newest signed checkpoint, and by its
MAC, so one altered byte is a fault. Events that the log lists for the filters of the export, but
that the file does not have, are faults.
"""

import hashlib
import hmac
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache

from django.utils.translation import gettext as _

from ..._internal.batches import split_into_batches
from ..errors import LogDamaged, ProofInvalid
from ..events import AuthenticatedEvent, Event, canonical_bytes, parse_event
from ..merkle.checkpoint import Checkpoint, LogKey, verify_checkpoint
from ..merkle.proof import NodesReader, build_inclusion_proof, verify_inclusion
from ..merkle.rfc6962 import hash_leaf, hash_node
from ..models import AuditLeaf
from ..partitions import LEAF_TABLE, list_gaps
from ..router import AUDIT_ALIAS
from ..search import EventFilters, iterate_events
from ..storage import translate_database_errors
from .reader import create_mac_calculator, read_checkpoints
from .tree_storage import LEVEL_STEP, find_leaf_hashes, read_node

MAX_LISTED_FAULTS = 20
_BATCH_SIZE = 1_000
_BLOCK_LEAVES = 1 << LEVEL_STEP
_CACHED_BLOCKS = 64
_CACHED_NODES = 65_536


class FileFaultKind(StrEnum):
    """What is wrong with an exported file."""

    LINE_UNREADABLE = "line_unreadable"
    LINE_OUT_OF_ORDER = "line_out_of_order"
    EVENT_ALTERED = "event_altered"
    EVENT_MISSING = "event_missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFault:
    """A fault of a line, or an event that the file does not have."""

    kind: FileFaultKind
    line: int | None = None
    """Counted from 1; None for a missing event."""
    event_id: uuid.UUID | None = None
    occurred_at: datetime | None = None

    def describe(self) -> str:
        """Return the fault as a translated sentence."""
        if self.occurred_at:
            time = f"{self.occurred_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
        else:
            time = ""

        text = {
            FileFaultKind.LINE_UNREADABLE: _("Line %(line)s is not an event as it was exported."),
            FileFaultKind.LINE_OUT_OF_ORDER: _("Line %(line)s is repeated, or not in its place."),
            FileFaultKind.EVENT_ALTERED: _("The event in line %(line)s is not what was sealed."),
            FileFaultKind.EVENT_MISSING: _(
                "The event %(event)s of %(time)s UTC is in the log, but not in the file."
            ),
        }[self.kind]
        return text % {"line": self.line, "event": self.event_id, "time": time}


@dataclass(slots=True, kw_only=True)
class FileVerification:
    """The result, which is complete when `verify_exported_file` has returned."""

    checkpoint: Checkpoint | None
    """The newest one; None if nothing is sealed."""
    sha256: str = ""
    line_count: int = 0
    sealed_count: int = 0
    """Lines that are what was sealed."""
    waiting_count: int = 0
    """Lines with a valid MAC that no checkpoint covers yet: verify again after the next sealing."""
    detached_count: int = 0
    """Lines with a valid MAC whose leaves have left the log with their month: the archives have
    these events.
    """
    unlisted_count: int = 0
    """Valid lines that the log does not list for the filters: other filters, or the events are only
    in archives.
    """
    has_later_events: bool = False
    """The log has events after the last line, and the filters have no end in the past."""
    first_time: datetime | None = None
    last_time: datetime | None = None
    fault_count: int = 0
    faults: list[FileFault] = field(default_factory=list)
    """The first MAX_LISTED_FAULTS."""

    @property
    def is_verified(self) -> bool:
        """All lines are what was sealed, and no event is missing. An empty file is not verified."""
        return (
            not self.fault_count and bool(self.line_count) and self.sealed_count == self.line_count
        )

    def add_fault(self, fault: FileFault) -> None:
        self.fault_count += 1
        if len(self.faults) < MAX_LISTED_FAULTS:
            self.faults.append(fault)


def verify_exported_file(
    lines: Iterable[bytes],
    filters: EventFilters,
    *,
    keys: Sequence[LogKey],
    now: datetime,
    max_faults: int | None = None,
) -> FileVerification:
    """Return how the lines of a file compare with the sealed log, in constant memory.

    filters: those of the export. keys: the public keys of the log. max_faults: after so many, only
    the lines are verified: another file, or wrong filters, must not make a request read the whole
    log.
    NOT checked: that the log is undamaged elsewhere (`verify_log`).
    Raises: AuditUnavailable, CheckpointInvalid, KeyMissing, LogDamaged, RowUnreadable.
    """
    with translate_database_errors():
        newest = next(iter(read_checkpoints(-1, limit=1, newest_first=True)), None)

    checkpoint = None
    if newest:
        checkpoint = verify_checkpoint(newest.note, keys)

    result = FileVerification(checkpoint=checkpoint)
    listed_events = ((row.id, row.occurred_at) for row in iterate_events(filters))
    listed = next(listed_events, None)

    def has_many_faults() -> bool:
        return max_faults is not None and result.fault_count >= max_faults

    for event_id in _FileVerifier(result).verify_lines(lines):
        while listed and listed[0] < event_id and not has_many_faults():
            _report_missing(*listed, result)
            listed = next(listed_events, None)
        if listed and listed[0] == event_id:
            listed = next(listed_events, None)
        elif not has_many_faults():
            result.unlisted_count += 1
    if filters.until is None or filters.until > now:
        result.has_later_events = listed is not None
        return result
    while listed and not has_many_faults():
        _report_missing(*listed, result)
        listed = next(listed_events, None)
    return result


def _report_missing(event_id: uuid.UUID, occurred_at: datetime, result: FileVerification) -> None:
    result.add_fault(
        FileFault(kind=FileFaultKind.EVENT_MISSING, event_id=event_id, occurred_at=occurred_at)
    )


class _FileVerifier:
    """Verifies the lines one by one, and counts in `result`."""

    def __init__(self, result: FileVerification) -> None:
        self._result = result

        if result.checkpoint:
            self._tree_size = result.checkpoint.tree_size
        else:
            self._tree_size = 0

        self._compute_mac = create_mac_calculator()
        self._read_nodes = create_cached_nodes_reader()
        self._last_id = uuid.UUID(int=0)
        with translate_database_errors():
            # The last one begins after the last partition: no event of it has left.
            self._gaps = list_gaps(LEAF_TABLE)[:-1]

    def verify_lines(self, lines: Iterable[bytes]) -> Iterator[uuid.UUID]:
        """Yield the ids of the events, which ascend."""
        digest = hashlib.sha256()
        for batch in split_into_batches(enumerate(lines, start=1), _BATCH_SIZE):
            for _number, line in batch:
                digest.update(line)
            self._result.line_count += len(batch)
            with translate_database_errors():
                event_ids = self._verify_batch(batch)
            yield from event_ids
        self._result.sha256 = digest.hexdigest()

    def _verify_batch(self, batch: Sequence[tuple[int, bytes]]) -> list[uuid.UUID]:
        items = []
        for number, line in batch:
            parsed = self._parse_line(number, line)
            if parsed is not None:
                items.append((number, parsed))
        leaves = AuditLeaf.objects.using(AUDIT_ALIAS).filter(
            event_id__in=[item.event.id for _number, item in items]
        )
        leaf_indexes = dict(leaves.values_list("event_id", "leaf_index"))
        event_ids = []
        for number, item in items:
            event = item.event
            leaf_index = leaf_indexes.get(item.event.id)
            is_valid = self._is_valid(item, leaf_index)
            if not is_valid:
                self._add_fault(FileFaultKind.EVENT_ALTERED, number, item)
                if leaf_index is None:
                    # The id was altered, and says nothing about the place of the line.
                    continue
            if event.id <= self._last_id:
                self._add_fault(FileFaultKind.LINE_OUT_OF_ORDER, number, item)
                continue
            if is_valid:
                self._count_valid(event, leaf_index)
            self._last_id = event.id
            event_ids.append(event.id)
        return event_ids

    def _add_fault(self, kind: FileFaultKind, number: int, item: AuthenticatedEvent) -> None:
        self._result.add_fault(FileFault(kind=kind, line=number, event_id=item.event.id))

    def _count_valid(self, event: Event, leaf_index: int | None) -> None:
        result = self._result
        result.first_time = result.first_time or event.occurred_at
        result.last_time = event.occurred_at
        if self._is_sealed(leaf_index):
            result.sealed_count += 1
        elif leaf_index is None and any(first <= event.id < end for first, end in self._gaps):
            result.detached_count += 1
        else:
            result.waiting_count += 1

    def _parse_line(self, number: int, line: bytes) -> AuthenticatedEvent | None:
        try:
            if line.endswith(b"\n"):
                return parse_event(line[:-1].decode("utf-8"))
        except ValueError:
            pass
        self._result.add_fault(FileFault(kind=FileFaultKind.LINE_UNREADABLE, line=number))
        return None

    def _is_sealed(self, leaf_index: int | None) -> bool:
        return leaf_index is not None and leaf_index < self._tree_size

    def _is_valid(self, item: AuthenticatedEvent, leaf_index: int | None) -> bool:
        """Verify the MAC, which the leaf hash does not cover, and the path from the leaf to the
        signed root.
        """
        canonical = canonical_bytes(item.event)
        if not hmac.compare_digest(
            self._compute_mac(item.event.mac_key, canonical) or b"", item.mac
        ):
            return False
        if leaf_index is None or not self._is_sealed(leaf_index):
            return True
        return self._is_in_tree(hash_leaf(canonical), leaf_index)

    def _is_in_tree(self, leaf_hash: bytes, leaf_index: int) -> bool:
        if self._result.checkpoint is None:
            return False
        try:
            verify_inclusion(
                leaf_hash=leaf_hash,
                leaf_index=leaf_index,
                tree_size=self._tree_size,
                proof=build_inclusion_proof(leaf_index, self._tree_size, self._read_nodes),
                root_hash=self._result.checkpoint.root_hash,
            )
        except ProofInvalid:
            return False
        return True


def create_cached_nodes_reader() -> NodesReader:
    """Return `read_nodes` with a cache: the paths of adjacent leaves share nearly all of their
    nodes.
    """

    @lru_cache(maxsize=_CACHED_BLOCKS)
    def read_block(block: int) -> dict[int, bytes]:
        return find_leaf_hashes(block * _BLOCK_LEAVES, (block + 1) * _BLOCK_LEAVES)

    @lru_cache(maxsize=_CACHED_NODES)
    def read(level: int, index: int) -> bytes:
        if level >= LEVEL_STEP:
            return read_node(level, index)
        if level:
            return hash_node(read(level - 1, 2 * index), read(level - 1, 2 * index + 1))
        try:
            return read_block(index // _BLOCK_LEAVES)[index]
        except KeyError as error:
            raise LogDamaged(f"Leaf {index} can't be read.") from error

    return lambda places: [read(*place) for place in places]
