"""Recompute the whole log from the events, in constant memory, and report each fault with its kind
and its event.
"""

import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain, pairwise

from django.db.models import Q

from ..._internal.randomness import lowest_uuid7
from ..errors import CheckpointInvalid, ColumnsAltered, LogDamaged
from ..events import is_declaration, is_valid_event
from ..merkle.checkpoint import Checkpoint, LogKey
from ..merkle.rfc6962 import MAX_TREE_SIZE, hash_leaf
from ..models import AuditLeaf, AuditNode
from ..triggers import list_deviations
from ..trusted_transaction import trusted_transaction
from .archive_records import DetachedLeaves
from .findings import FindingKind, LogFinding, VerificationSummary, format_event_id
from .ranges import (
    LogRange,
    Part,
    find_checkpoint_at_least,
    find_checkpoint_at_most,
    find_newest_checkpoint,
    get_range_of_part,
    is_continued,
    verify_row,
)
from .reader import (
    RawCheckpoint,
    RawEvent,
    create_mac_calculator,
    read_checkpoints,
    read_checkpoints_without_size,
    read_leafless_events,
    read_leaves_beyond,
    read_orphaned_queue_ids,
    read_queued_leafless_events,
)
from .recovery import LogRestore, read_declared_restores
from .replayer import ArchivedEventLookup, KnownRoot, LogReplay, MacCalculator
from .signing_keys import find_epoch
from .tree_storage import STORED_LEVELS

LEAVES_PER_CHUNK = 50_000
"""Leaves in memory at once. A chunk ends at a checkpoint if there is one within twice as many."""
UNSEALED_AFTER = timedelta(minutes=5)
_MAX_REPORTED_ROWS = 1000
_MAX_SHOWN_SIZE = 100


def verify_log(
    *,
    keys: Sequence[LogKey],
    now: datetime,
    summary: VerificationSummary,
    start: LogRange | None = None,
    parts: Sequence[Part] | None = None,
    witnessed_checkpoints: Sequence[Checkpoint] = (),
    find_archived: ArchivedEventLookup = lambda leaf_index: None,
    archived_restore_events: Sequence[tuple[int, bytes]] = (),
    archived_size: int = 0,
    detached_leaves: DetachedLeaves = DetachedLeaves(),  # noqa: B008 -- frozen
    known_lost_sizes: Collection[int] = (),
    unsealed_after: timedelta = UNSEALED_AFTER,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[LogFinding]:
    """Yield what is not as it was sealed, and count in `summary` what was read.

    start: continue there; None: begin with the first event. parts: read only these, in ascending
    order, each up to the checkpoints around it. The triggers, the queue, and rows beyond the log
    are always verified; events that have no leaf and are not queued only in what is read.
    witnessed_checkpoints: checkpoints that were kept outside, whose signatures the caller has
    verified. find_archived: returns the canonical bytes of an event that is no longer in the table.
    archived_restore_events: leaf index and canonical bytes of the restore events among these.
    archived_size: before this leaf, a missing event is no fault, because it is in an archive.
    detached_leaves: of these, a missing row is no fault if a tile or an archive has the hash.
    known_lost_sizes: the sizes of the checkpoints that were lost in restores of which the operator
    knows: only these forks are no faults. progress: called with the leaves read and their total.
    Requires: the audit connection is not used between two findings. A sequencer may run at the same
    time.
    Raises: KeyMissing.
    """
    for text in list_deviations():
        finding = LogFinding(kind=FindingKind.PROTECTION_ALTERED, text=f"{text}.")
        summary.add(finding)
        yield finding
    try:
        verification = _Verification(
            keys,
            declared_restores=read_declared_restores(archived_restore_events),
            archived_size=archived_size,
            detached_leaves=detached_leaves,
            summary=summary,
            progress=progress,
            reads_all=parts is None,
        )
        first = start or LogRange()
        # Witnessed checkpoints up to this size are not compared with the leaves.
        if parts is None:
            compared_from = first.tree.size
        else:
            compared_from = verification.size

        for finding in chain(
            verification.compare_witnessed(witnessed_checkpoints, compared_from, known_lost_sizes),
            verification.verify_ranges(
                [first] if parts is None else verification.iterate_ranges(parts), find_archived
            ),
            verification.verify_remaining_rows(lowest_uuid7(now - unsealed_after).bytes),
        ):
            summary.add(finding)
            yield finding
    except ColumnsAltered as error:
        yield add_unread_log(error, summary)


def add_unread_log(error: ColumnsAltered, summary: VerificationSummary) -> LogFinding:
    """Count the finding that the log was not read, or not to its end, and return it."""
    finding = LogFinding(kind=FindingKind.PROTECTION_ALTERED, text=f"The log was not read: {error}")
    summary.add(finding)
    return finding


class _Verification:
    """One run of `verify_log`."""

    def __init__(
        self,
        keys: Sequence[LogKey],
        *,
        declared_restores: Iterable[LogRestore],
        archived_size: int,
        detached_leaves: DetachedLeaves,
        summary: VerificationSummary,
        progress: Callable[[int, int], None],
        reads_all: bool,
    ) -> None:
        self._keys = keys
        self._summary = summary
        self._progress = progress
        self._archived_size = archived_size
        self._detached_leaves = detached_leaves
        self._compute_mac = create_mac_calculator()
        self._witnessed_roots: list[KnownRoot] = []
        self._read_ids: list[tuple[uuid.UUID | None, uuid.UUID | None]] = []
        """The bounds of the ids of each range."""
        self._missing_events: dict[bytes, tuple[int, bytes]] = {}
        with trusted_transaction():
            self._checkpoints = _CheckpointVerifier(keys, declared_restores)
            self._newest = find_newest_checkpoint(keys)
            if self._newest:
                summary.tree_size = self._newest.tree_size
            else:
                summary.tree_size = 0

            if reads_all:
                self.size = _count_leaves_to_read(summary.tree_size)
            else:
                self.size = summary.tree_size

    def compare_witnessed(
        self,
        checkpoints: Sequence[Checkpoint],
        compared_from: int,
        known_lost_sizes: Collection[int],
    ) -> Iterator[LogFinding]:
        """Yield findings for witnessed checkpoints.

        Those above the size `compared_from` are compared with the leaves later. For the others, the
        stored nodes must prove that the newest checkpoint continues them.
        """
        roots, findings = _check_witnessed_checkpoints(
            checkpoints,
            size=self.size,
            restores=self._checkpoints.restores,
            known_lost_sizes=known_lost_sizes,
        )
        yield from findings
        self._witnessed_roots = [root for root in roots if root.tree_size > compared_from]
        for root in roots:
            if root.tree_size <= compared_from and not self._continues(root):
                text = (
                    "The stored nodes do not prove that this log "
                    "continues a checkpoint that was kept outside."
                )
                yield LogFinding(
                    kind=FindingKind.FORK_UNDECLARED, tree_size=root.tree_size, text=text
                )

    def _continues(self, root: KnownRoot) -> bool:
        newest = self._newest
        if newest is None:
            return False
        return is_continued(
            root.tree_size, root.root_hash, size=newest.tree_size, root_hash=newest.root_hash
        )

    def iterate_ranges(self, parts: Sequence[Part]) -> Iterator[LogRange | LogFinding]:
        """Yield the ranges with these parts, without overlaps; a finding if the tree before a part
        is damaged.
        """
        covered = 0
        for start, end in parts:
            if end <= covered:
                continue
            try:
                with trusted_transaction():
                    log_range = get_range_of_part((max(start, covered), end), self._keys)
            except LogDamaged as error:
                covered = end
                yield LogFinding(kind=FindingKind.TREE_ALTERED, leaf_index=start, text=str(error))
                continue

            if log_range.end_size is None:
                covered = self.size
            else:
                covered = log_range.end_size

            yield log_range

    def verify_ranges(
        self, ranges: Iterable[LogRange | LogFinding], find_archived: ArchivedEventLookup
    ) -> Iterator[LogFinding]:
        for item in ranges:
            if isinstance(item, LogFinding):
                yield item
            else:
                yield from self._verify_range(item, find_archived)

    def _verify_range(
        self, log_range: LogRange, find_archived: ArchivedEventLookup
    ) -> Iterator[LogFinding]:
        first = log_range.tree.size

        if log_range.end_size is None:
            size = self.size
        else:
            size = log_range.end_size

        self._checkpoints.continue_from(log_range.epoch, first)
        self._summary.verified_size = first
        self._summary.verified_root = log_range.tree.compute_root()
        replay = LogReplay(
            log_range.tree,
            compute_mac=self._compute_mac,
            find_archived=find_archived,
            summary=self._summary,
            archived_size=self._archived_size,
            detached_leaves=self._detached_leaves,
        )
        while replay.tree.size < size:
            start = replay.tree.size
            with trusted_transaction():
                signed_roots, findings, end = self._checkpoints.verify_chunk(start, size)
            yield from findings
            known_roots = [
                *signed_roots,
                *(root for root in self._witnessed_roots if start < root.tree_size <= end),
            ]
            known_roots.sort(key=lambda root: (root.tree_size, root.is_witnessed))
            yield from replay.advance(end, known_roots)
            self._progress(end - first, size - first)
        self._read_ids.append((log_range.first_id, log_range.end_id))
        self._missing_events |= replay.missing_events

    def verify_remaining_rows(self, overdue_id: bytes) -> Iterator[LogFinding]:
        """Yield faults outside the leaves. Leaves appended in the meantime are covered by a newer
        checkpoint.

        overdue_id: events with a smaller id should have been sealed.
        """
        size = self.size
        beyond = list(read_leaves_beyond(size, limit=_MAX_REPORTED_ROWS))
        with trusted_transaction():
            nodes = list(
                AuditNode.objects.filter(_build_extra_nodes_condition(size))[:_MAX_REPORTED_ROWS]
            )
            covered, findings = self._checkpoints.verify_remaining(size)
        yield from findings
        for value in read_checkpoints_without_size(limit=_MAX_REPORTED_ROWS):
            text = f"The size of a checkpoint is {value[:_MAX_SHOWN_SIZE]!a}, which is no integer."
            yield LogFinding(kind=FindingKind.TREE_ALTERED, text=text)
        for leaf in beyond:
            if not size <= leaf.leaf_index < covered:
                id_ = format_event_id(leaf.event_id)
                text = "No checkpoint covers this leaf."
                yield LogFinding(
                    kind=FindingKind.TREE_ALTERED,
                    leaf_index=leaf.leaf_index,
                    event_id=id_,
                    text=text,
                )
        for node in nodes:
            if (
                node.node_index < 0
                or (node.node_index + 1) << node.level > covered
                or node.level not in STORED_LEVELS
            ):
                text = (
                    f"Node {node.node_index} of level {node.level} is "
                    "stored, but the log has no such leaves."
                )
                yield LogFinding(kind=FindingKind.TREE_ALTERED, text=text)
        leafless = [read_queued_leafless_events(covered)]
        for first, end in self._read_ids:
            leafless.append(read_leafless_events(covered, first_id=first, end_id=end))
        for event in chain.from_iterable(leafless):
            if finding := _check_leafless_event(
                event, self._missing_events, self._compute_mac, overdue_id
            ):
                yield finding
            else:
                self._summary.waiting += 1
        for id_bytes in read_orphaned_queue_ids():
            text = "It is gone, and was never sealed."
            yield LogFinding(
                kind=FindingKind.EVENT_MISSING, event_id=format_event_id(id_bytes), text=text
            )


def _build_extra_nodes_condition(size: int) -> Q:
    """Return the condition for stored nodes that no log of that size has, in a form that the
    primary key serves.
    """
    bounds = [-1, *STORED_LEVELS, MAX_TREE_SIZE]
    is_extra = Q()
    for lower, upper in pairwise(bounds):
        is_extra |= Q(level__gt=lower, level__lt=upper)
    for level in STORED_LEVELS:
        is_extra |= Q(level=level, node_index__lt=0) | Q(level=level, node_index__gte=size >> level)
    return is_extra


def _count_leaves_to_read(verified_size: int) -> int:
    """Return how many leaves to read: the verified ones, and those that only an invalid checkpoint
    covers.
    """
    covered = max(
        (row.tree_size for row in read_checkpoints(verified_size, limit=1, newest_first=True)),
        default=0,
    )
    unverified = AuditLeaf.objects.filter(
        leaf_index__gte=verified_size, leaf_index__lt=max(covered, verified_size)
    )
    return verified_size + unverified.count()


class _CheckpointVerifier:
    """Verifies the checkpoints of the database in their order."""

    def __init__(self, keys: Sequence[LogKey], declared_restores: Iterable[LogRestore]) -> None:
        self._keys = keys
        self._epoch = 1
        self._previous_size = 0
        self.restores: dict[int, LogRestore] = {}
        """The restore that opened each epoch after the first."""
        for restore in declared_restores:
            if restore.epoch not in self.restores and self._opens_epoch(restore):
                self.restores[restore.epoch] = restore

    def _opens_epoch(self, restore: LogRestore) -> bool:
        """Whether the next checkpoint is the first that is signed under the epoch of this event.

        Anybody with the MAC key can write the event, and the sealer of an earlier version signed it
        under the epoch before. Only `audit resume`, with the signing key, signs the new epoch.
        """
        after = find_checkpoint_at_least(restore.leaf_index + 1, self._keys)
        before = find_checkpoint_at_most(restore.leaf_index, self._keys)
        is_opened = after is not None and find_epoch(after.origin) == restore.epoch
        return is_opened and (before is None or (find_epoch(before.origin) or 0) < restore.epoch)

    def continue_from(self, epoch: int, tree_size: int) -> None:
        """Verify the checkpoints after one of that epoch and size next."""
        self._epoch = epoch
        self._previous_size = tree_size

    def verify_chunk(self, start: int, size: int) -> tuple[list[KnownRoot], list[LogFinding], int]:
        """Return the roots signed after `start`, the faults of their checkpoints, and the size up
        to which to read.
        """
        limit = min(size, start + 2 * LEAVES_PER_CHUNK)
        roots: list[KnownRoot] = []
        findings: list[LogFinding] = []
        for row in self._read_after(start):
            if row.tree_size > limit:
                break
            root, faults = self._verify_row(row)
            findings += faults

            if root:
                roots += [root]

            if row.tree_size >= start + LEAVES_PER_CHUNK:
                return roots, findings, row.tree_size
        return roots, findings, limit

    def verify_remaining(self, size: int) -> tuple[int, list[LogFinding]]:
        """Return how many leaves valid checkpoints cover by now, and the faults of checkpoints
        beyond `size`.
        """
        covered = size
        findings = []
        if self._previous_size != size and (newest := find_checkpoint_at_most(size, self._keys)):
            self.continue_from(find_epoch(newest.origin) or 0, newest.tree_size)
        for row in self._read_after(size):
            root, faults = self._verify_row(row)
            findings += faults
            covered = root.tree_size if root else covered
        return covered, findings

    def _read_after(self, start: int) -> Iterator[RawCheckpoint]:
        while rows := read_checkpoints(start, limit=1000):
            yield from rows
            start = rows[-1].tree_size

    def _verify_row(self, row: RawCheckpoint) -> tuple[KnownRoot | None, list[LogFinding]]:
        try:
            checkpoint = verify_row(row, self._keys)
        except CheckpointInvalid as error:
            return None, [
                LogFinding(kind=FindingKind.TREE_ALTERED, tree_size=row.tree_size, text=str(error))
            ]
        findings = list(self._verify_epoch(row))
        if row.root_hash != checkpoint.root_hash:
            text = "Its root is not the one that was signed."
            findings.append(
                LogFinding(kind=FindingKind.TREE_ALTERED, tree_size=row.tree_size, text=text)
            )
        return KnownRoot(checkpoint.tree_size, checkpoint.root_hash), findings

    def _verify_epoch(self, row: RawCheckpoint) -> Iterator[LogFinding]:
        """Check that a new epoch begins with the event that declares it."""
        previous_size = self._previous_size
        self._previous_size = row.tree_size
        if row.epoch == self._epoch:
            return
        restore = self.restores.get(row.epoch)
        is_newer = row.epoch > self._epoch
        self._epoch = row.epoch
        if (
            restore is None
            or not is_newer
            or not previous_size <= restore.leaf_index < row.tree_size
        ):
            text = "Its epoch begins without the event that declares it."
            yield LogFinding(kind=FindingKind.FORK_UNDECLARED, tree_size=row.tree_size, text=text)


def _check_witnessed_checkpoints(
    witnessed_checkpoints: Sequence[Checkpoint],
    *,
    size: int,
    restores: Mapping[int, LogRestore],
    known_lost_sizes: Collection[int],
) -> tuple[list[KnownRoot], list[LogFinding]]:
    """Return the roots of the witnessed checkpoints that the log must lead to, and findings for the
    other ones.
    """
    roots: list[KnownRoot] = []
    findings = []
    for checkpoint in witnessed_checkpoints:
        epoch = find_epoch(checkpoint.origin)
        later_restores = []
        for number in sorted(restores):
            if epoch is not None and number > epoch:
                later_restores.append(restores[number])
        if (
            epoch is not None
            and later_restores
            and checkpoint.tree_size > later_restores[0].leaf_index
        ):
            findings.append(
                _build_restore_finding(checkpoint, epoch, later_restores[0], known_lost_sizes)
            )
        elif epoch is None or checkpoint.tree_size > size:
            kind = FindingKind.LOG_TRUNCATED
            kept_size = checkpoint.tree_size
            text = f"A checkpoint of {kept_size} events was kept outside; the log ends at {size}."
            findings.append(LogFinding(kind=kind, tree_size=kept_size, leaf_index=size, text=text))
        else:
            roots.append(KnownRoot(checkpoint.tree_size, checkpoint.root_hash, is_witnessed=True))
    return roots, findings


def _build_restore_finding(
    checkpoint: Checkpoint, epoch: int, restore: LogRestore, known_lost_sizes: Collection[int]
) -> LogFinding:
    """Report a checkpoint that a restore lost. It is a declared fork if the restore event covers
    the checkpoint.
    """
    is_fault = True
    lost = restore.lost_checkpoint
    lost_epoch = find_epoch(restore.lost_checkpoint.origin) or 0
    place = (epoch, checkpoint.tree_size)
    lost_place = (lost_epoch, lost.tree_size)
    if place > lost_place or (place == lost_place and checkpoint.root_hash != lost.root_hash):
        kind = FindingKind.FORK_UNDECLARED
        text = (
            f"The log was restored, and declared {lost.tree_size} "
            "events as known outside, not these."
        )
    else:
        kind = FindingKind.FORK_DECLARED
        text = (
            f"The log was restored and says so: of {lost.tree_size} "
            f"events, {restore.leaf_index} were left."
        )
        is_fault = lost.tree_size not in known_lost_sizes
        if is_fault:
            text += f" If you know of that restore, name it: --lost-size {lost.tree_size}."
    size = checkpoint.tree_size
    leaf_index = restore.leaf_index
    return LogFinding(
        kind=kind, tree_size=size, leaf_index=leaf_index, text=text, is_fault=is_fault
    )


def _check_leafless_event(
    event: RawEvent,
    missing: Mapping[bytes, tuple[int, bytes]],
    compute_mac: MacCalculator,
    overdue_id: bytes,
) -> LogFinding | None:
    """Return what is wrong with an event that has no leaf; None if it only waits to be sealed."""
    canonical = event.canonical or b""
    mac = compute_mac(event.mac_key, canonical)
    leaf_index = None
    if leaf := missing.get(hash_leaf(canonical)):
        kind = FindingKind.EVENT_ALTERED
        leaf_index = leaf[0]
        text = (
            "Its leaf was changed, and now names event "
            f"{format_event_id(leaf[1])}; the event is as it was sealed."
        )
    elif mac is None:
        text = f"It is not sealed: its MAC key {event.mac_key!a} is not configured."
        kind = FindingKind.EVENT_KEY_UNKNOWN
    elif mac != event.mac:
        kind = FindingKind.EVENT_FORGED
        text = "Its MAC is not valid, and it was never sealed."
    elif is_declaration(canonical) or not is_valid_event(canonical):
        kind = FindingKind.EVENT_FORGED
        text = "It is not an event of this app: the MAC key was used to insert it."
    elif event.event_id < overdue_id:
        kind = FindingKind.EVENT_UNSEALED
        text = "It should have been sealed long ago."
    else:
        return None
    return LogFinding(
        kind=kind, event_id=format_event_id(event.event_id), leaf_index=leaf_index, text=text
    )
