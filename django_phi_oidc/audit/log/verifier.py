"""Recompute the whole log from the events, in constant memory, and report each fault with its kind and its event."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial

from django.db.models import Q

from ..._internal.randomness import lowest_uuid7
from ...errors import CheckpointInvalid
from ...merkle.checkpoint import Checkpoint, LogKey, verify_checkpoint
from ...merkle.rfc6962 import MAX_TREE_SIZE, hash_leaf
from ..events import is_restore_event, is_valid_event
from ..models import AuditLeaf, AuditNode
from ..triggers import list_deviations
from .findings import FindingKind, LogFinding, VerificationSummary, format_event_id
from .reader import (
    RawCheckpoint,
    RawEvent,
    create_mac_calculator,
    read_checkpoints,
    read_leafless_events,
    read_leaves_beyond,
    read_orphaned_queue_ids,
    trusted_transaction,
)
from .recovery import LogRestore, read_declared_restores
from .replayer import ArchivedEventLookup, KnownRoot, LogReplay, MacCalculator
from .signing_keys import find_epoch, get_checkpoint_origin
from .tree_storage import STORED_LEVELS

LEAVES_PER_CHUNK = 50_000
"""Leaves in memory at once. A chunk ends at a checkpoint if there is one within twice as many."""
UNSEALED_AFTER = timedelta(minutes=5)
_MAX_REPORTED_ROWS = 1000


def verify_log(
    *,
    keys: Sequence[LogKey],
    now: datetime,
    summary: VerificationSummary,
    witnessed_checkpoints: Sequence[Checkpoint] = (),
    find_archived: ArchivedEventLookup = lambda leaf_index: None,
    archived_restore_events: Sequence[tuple[int, bytes]] = (),
    known_lost_sizes: Collection[int] = (),
    unsealed_after: timedelta = UNSEALED_AFTER,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[LogFinding]:
    """Yield what is not as it was sealed, and count in `summary` what was read.

    witnessed_checkpoints: checkpoints that were kept outside, whose signatures the caller has verified. find_archived:
    returns the canonical bytes of an event that is no longer in the table. archived_restore_events: leaf index and
    canonical bytes of the restore events among these. known_lost_sizes: the sizes of the checkpoints that were lost in
    restores of which the operator knows: only these forks are no faults. progress: called with the leaves read and
    their total.
    Requires: the audit connection is not used between two findings. A sequencer may run at the same time.
    Raises: KeyMissing.
    """
    protection = (LogFinding(kind=FindingKind.PROTECTION_ALTERED, text=f"{text}.") for text in list_deviations())
    yield from _add_to_summary(protection, summary)
    compute_mac = create_mac_calculator()
    declared_restores = read_declared_restores(archived_restore_events)
    with trusted_transaction():
        checkpoints = _CheckpointVerifier(keys, declared_restores)
        summary.tree_size = checkpoints.get_newest_size()
        size = _count_leaves_to_read(summary.tree_size)
    replay = LogReplay(compute_mac=compute_mac, find_archived=find_archived, summary=summary)
    witnessed_roots, findings = _check_witnessed_checkpoints(
        witnessed_checkpoints, size=size, restores=checkpoints.restores, known_lost_sizes=known_lost_sizes
    )
    yield from _add_to_summary(findings, summary)
    while replay.tree.size < size:
        start = replay.tree.size
        with trusted_transaction():
            signed_roots, findings, end = checkpoints.verify_chunk(start, size)
        yield from _add_to_summary(findings, summary)
        known_roots = [*signed_roots, *(root for root in witnessed_roots if start < root.tree_size <= end)]
        known_roots.sort(key=lambda root: (root.tree_size, root.is_witnessed))
        yield from _add_to_summary(replay.advance(end, known_roots), summary)
        progress(end, size)
    overdue_id = lowest_uuid7(now - unsealed_after).bytes
    missing = replay.missing_events
    check = partial(_check_leafless_event, missing=missing, compute_mac=compute_mac, overdue_id=overdue_id)
    yield from _add_to_summary(_verify_remaining_rows(size, checkpoints, check, summary=summary), summary)


def _add_to_summary(findings: Iterable[LogFinding], summary: VerificationSummary) -> Iterator[LogFinding]:
    for finding in findings:
        summary.add(finding)
        yield finding


def _verify_remaining_rows(
    size: int,
    checkpoints: "_CheckpointVerifier",
    check_leafless: Callable[[RawEvent], LogFinding | None],
    *,
    summary: VerificationSummary,
) -> Iterator[LogFinding]:
    """Yield faults outside the sealed leaves. Leaves appended in the meantime are covered by a newer checkpoint."""
    beyond = list(read_leaves_beyond(size, limit=_MAX_REPORTED_ROWS))
    is_extra = Q(node_index__lt=0) | ~Q(level__in=STORED_LEVELS)
    for level in STORED_LEVELS:
        is_extra |= Q(level=level, node_index__gte=size >> level)
    with trusted_transaction():
        nodes = list(AuditNode.objects.filter(is_extra)[:_MAX_REPORTED_ROWS])
        covered, findings = checkpoints.verify_remaining(size)
    yield from findings
    for leaf in beyond:
        if not size <= leaf.leaf_index < covered:
            id_, text = format_event_id(leaf.event_id), "No checkpoint covers this leaf."
            yield LogFinding(kind=FindingKind.LEAF_EXTRA, leaf_index=leaf.leaf_index, event_id=id_, text=text)
    for node in nodes:
        if node.node_index < 0 or (node.node_index + 1) << node.level > covered or node.level not in STORED_LEVELS:
            text = f"Node {node.node_index} of level {node.level} is stored, but the log has no such leaves."
            yield LogFinding(kind=FindingKind.NODE_ALTERED, text=text)
    for event in read_leafless_events(covered):
        if finding := check_leafless(event):
            yield finding
        else:
            summary.waiting += 1
    for id_bytes in read_orphaned_queue_ids():
        text = "It is gone, and was never sealed."
        yield LogFinding(kind=FindingKind.EVENT_MISSING, event_id=format_event_id(id_bytes), text=text)


def _count_leaves_to_read(verified_size: int) -> int:
    """Return how many leaves to read: the verified ones, and those that only an invalid checkpoint covers."""
    covered = max((row.tree_size for row in read_checkpoints(verified_size, limit=1, newest_first=True)), default=0)
    unverified = AuditLeaf.objects.filter(leaf_index__gte=verified_size, leaf_index__lt=max(covered, verified_size))
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

        Anybody with the MAC key can write the event, and the sealer of an earlier version signed it under the epoch
        before. Only `audit resume`, with the signing key, signs the new epoch.
        """
        rows = self._read_after(restore.leaf_index)
        after = next((row for row in rows if isinstance(self._verify_signature(row), Checkpoint)), None)
        before = self._find_newest(below_size=restore.leaf_index + 1)
        return after is not None and after.epoch == restore.epoch and (before is None or before.epoch < restore.epoch)

    def get_newest_size(self) -> int:
        """Return the size of the newest valid checkpoint; 0 if there is none."""
        newest = self._find_newest(below_size=MAX_TREE_SIZE)
        return newest.tree_size if newest else 0

    def _find_newest(self, *, below_size: int) -> RawCheckpoint | None:
        while rows := read_checkpoints(-1, limit=1, newest_first=True, below_size=below_size):
            if isinstance(self._verify_signature(rows[0]), Checkpoint):
                return rows[0]
            below_size = rows[0].tree_size
        return None

    def verify_chunk(self, start: int, size: int) -> tuple[list[KnownRoot], list[LogFinding], int]:
        """Return the roots signed after `start`, the faults of their checkpoints, and the size up to which to read."""
        limit = min(size, start + 2 * LEAVES_PER_CHUNK)
        roots: list[KnownRoot] = []
        findings: list[LogFinding] = []
        for row in self._read_after(start):
            if row.tree_size > limit:
                break
            root, faults = self._verify_row(row)
            findings += faults
            roots += [root] if root else []
            if row.tree_size >= start + LEAVES_PER_CHUNK:
                return roots, findings, row.tree_size
        return roots, findings, limit

    def verify_remaining(self, size: int) -> tuple[int, list[LogFinding]]:
        """Return how many leaves valid checkpoints cover by now, and the faults of checkpoints beyond `size`."""
        covered, findings = size, []
        for row in self._read_after(size):
            root, faults = self._verify_row(row)
            findings += faults
            covered = root.tree_size if root else covered
        return covered, findings

    def _read_after(self, start: int) -> Iterator[RawCheckpoint]:
        while rows := read_checkpoints(start, limit=1000):
            yield from rows
            start = rows[-1].tree_size
            if start < 0:
                return

    def _verify_row(self, row: RawCheckpoint) -> tuple[KnownRoot | None, list[LogFinding]]:
        checkpoint = self._verify_signature(row)
        if isinstance(checkpoint, LogFinding):
            return None, [checkpoint]
        findings = list(self._verify_epoch(row))
        if row.root_hash != checkpoint.root_hash:
            text = "Its root is not the one that was signed."
            findings.append(_build_checkpoint_finding(FindingKind.CHECKPOINT_ALTERED, row, text))
        return KnownRoot(checkpoint.tree_size, checkpoint.root_hash), findings

    def _verify_signature(self, row: RawCheckpoint) -> Checkpoint | LogFinding:
        try:
            checkpoint = verify_checkpoint(row.note, self._keys, expected_origin=get_checkpoint_origin(row.epoch))
        except CheckpointInvalid as error:
            return _build_checkpoint_finding(FindingKind.CHECKPOINT_SIGNATURE, row, str(error))
        if checkpoint.tree_size != row.tree_size:
            text = "Its size is not the one that was signed."
            return _build_checkpoint_finding(FindingKind.CHECKPOINT_ALTERED, row, text)
        return checkpoint

    def _verify_epoch(self, row: RawCheckpoint) -> Iterator[LogFinding]:
        """Check that a new epoch begins with the event that declares it."""
        previous_size, self._previous_size = self._previous_size, row.tree_size
        if row.epoch == self._epoch:
            return
        restore = self.restores.get(row.epoch)
        is_newer = row.epoch > self._epoch
        self._epoch = row.epoch
        if restore is None or not is_newer or not previous_size <= restore.leaf_index < row.tree_size:
            text = "Its epoch begins without the event that declares it."
            yield _build_checkpoint_finding(FindingKind.EPOCH_UNDECLARED, row, text)


def _check_witnessed_checkpoints(
    witnessed_checkpoints: Sequence[Checkpoint],
    *,
    size: int,
    restores: Mapping[int, LogRestore],
    known_lost_sizes: Collection[int],
) -> tuple[list[KnownRoot], list[LogFinding]]:
    """Return the roots of the witnessed checkpoints that the log must lead to, and findings for the other ones."""
    roots: list[KnownRoot] = []
    findings = []
    for checkpoint in witnessed_checkpoints:
        epoch = find_epoch(checkpoint.origin)
        later_restores = [restores[number] for number in sorted(restores) if epoch is not None and number > epoch]
        if epoch is not None and later_restores and checkpoint.tree_size > later_restores[0].leaf_index:
            findings.append(_build_restore_finding(checkpoint, epoch, later_restores[0], known_lost_sizes))
        elif epoch is None or checkpoint.tree_size > size:
            kind, kept_size = FindingKind.LOG_TRUNCATED, checkpoint.tree_size
            text = f"A checkpoint of {kept_size} events was kept outside; the log ends at {size}."
            findings.append(LogFinding(kind=kind, tree_size=kept_size, leaf_index=size, text=text))
        else:
            roots.append(KnownRoot(checkpoint.tree_size, checkpoint.root_hash, is_witnessed=True))
    return roots, findings


def _build_restore_finding(
    checkpoint: Checkpoint, epoch: int, restore: LogRestore, known_lost_sizes: Collection[int]
) -> LogFinding:
    """Report a checkpoint that a restore lost. It is a declared fork if the restore event covers the checkpoint."""
    is_fault = True
    lost, lost_epoch = restore.lost_checkpoint, find_epoch(restore.lost_checkpoint.origin) or 0
    place, lost_place = (epoch, checkpoint.tree_size), (lost_epoch, lost.tree_size)
    if place > lost_place or (place == lost_place and checkpoint.root_hash != lost.root_hash):
        kind = FindingKind.FORK_UNDECLARED
        text = f"The log was restored, and declared {lost.tree_size} events as known outside, not these."
    else:
        kind = FindingKind.FORK_DECLARED
        text = f"The log was restored and says so: of {lost.tree_size} events, {restore.leaf_index} were left."
        is_fault = lost.tree_size not in known_lost_sizes
        text += f" If you know of that restore, name it: --lost-size {lost.tree_size}." if is_fault else ""
    size, leaf_index = checkpoint.tree_size, restore.leaf_index
    return LogFinding(kind=kind, tree_size=size, leaf_index=leaf_index, text=text, is_fault=is_fault)


def _check_leafless_event(
    event: RawEvent, *, missing: Mapping[bytes, tuple[int, bytes]], compute_mac: MacCalculator, overdue_id: bytes
) -> LogFinding | None:
    """Return what is wrong with an event that has no leaf; None if it only waits to be sealed."""
    canonical = event.canonical or b""
    mac = compute_mac(event.mac_key, canonical)
    id_ = format_event_id(event.event_id)
    if leaf := missing.get(hash_leaf(canonical)):
        text = f"The leaf now names event {format_event_id(leaf[1])}, but was made of this one."
        return LogFinding(kind=FindingKind.LEAF_ALTERED, event_id=id_, leaf_index=leaf[0], text=text)
    if mac is None:
        text = f"It is not sealed: its MAC key {event.mac_key!a} is not configured."
        kind = FindingKind.EVENT_KEY_UNKNOWN
    elif mac != event.mac:
        kind, text = FindingKind.EVENT_FORGED, "Its MAC is not valid, and it was never sealed."
    elif is_restore_event(canonical) or not is_valid_event(canonical):
        kind, text = FindingKind.EVENT_INVALID, "It is not an event of this app: the MAC key was used to insert it."
    elif event.event_id < overdue_id:
        kind, text = FindingKind.EVENT_UNSEALED, "It should have been sealed long ago."
    else:
        return None
    return LogFinding(kind=kind, event_id=id_, text=text)


def _build_checkpoint_finding(kind: FindingKind, row: RawCheckpoint, text: str) -> LogFinding:
    return LogFinding(kind=kind, tree_size=row.tree_size, text=text)
