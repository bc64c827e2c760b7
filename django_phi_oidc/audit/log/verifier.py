"""The whole log, recomputed from the events, in flat memory; each fault by its kind and by the event it is about."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.db.models import Q

from ..._internal.randomness import lowest_uuid7
from ...errors import CheckpointInvalid
from ...merkle.checkpoint import Checkpoint, verify_checkpoint
from ...merkle.rfc6962 import hash_leaf
from ..models import AuditLeaf, AuditNode
from .findings import FindingKind, LogFinding, VerificationSummary, format_event_id
from .keys import find_epoch, get_checkpoint_origin
from .reader import (
    RawCheckpoint,
    RawEvent,
    create_mac_calculator,
    read_checkpoints,
    read_leafless_events,
    read_leaves_beyond,
    read_orphaned_queue_ids,
)
from .recovery import LogRestore, get_log_restores
from .replayer import ArchivedEventLookup, KnownRoot, LogReplay
from .tree_storage import STORED_LEVELS

LEAVES_PER_CHUNK = 50_000
"""Leaves that are held in memory at once; it ends at a checkpoint where there is one in twice as many."""
UNSEALED_AFTER = timedelta(minutes=5)
_MAX_REPORTED_ROWS = 1000


def verify_log(
    *,
    keys: Sequence[Ed25519PublicKey],
    now: datetime,
    summary: VerificationSummary,
    witnessed_checkpoints: Sequence[Checkpoint] = (),
    find_archived: ArchivedEventLookup = lambda leaf_index: None,
    archived_restore_events: Sequence[tuple[int, bytes]] = (),
    unsealed_after: timedelta = UNSEALED_AFTER,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[LogFinding]:
    """Yield what is not as it was sealed, and count in tally what was seen.

    outside: checkpoints that were kept elsewhere, their signatures verified by the caller. archived: the canonical
    bytes of an event that is not in the table any more; restored: those among them that tell of a restore, with their
    leaf index. progress: called with the leaves done and their number.
    Requires: nothing else is asked of the trail's connection between two findings. A sealer may run beside it.
    Raises: KeyMissing.
    """
    compute_mac = create_mac_calculator()
    restores = get_log_restores(archived_restore_events)
    seals = _CheckpointVerifier(keys, restores)
    summary.tree_size = seals.get_newest_size()
    size = _count_leaves_to_read(summary.tree_size)
    retracing = LogReplay(compute_mac=compute_mac, find_archived=find_archived, summary=summary)
    witnessed, findings = _check_witnessed_checkpoints(witnessed_checkpoints, size=size, restores=restores)
    yield from _add_to_summary(findings, summary)
    while retracing.tree.size < size:
        start = retracing.tree.size
        stops, findings, end = seals.verify_chunk(start, size)
        yield from _add_to_summary(findings, summary)
        known = [stop for stop in witnessed if start < stop.tree_size <= end]
        both = sorted([*stops, *known], key=lambda stop: (stop.tree_size, stop.is_witnessed))
        yield from _add_to_summary(retracing.advance(end, both), summary)
        progress(end, size)
    overdue = lowest_uuid7(now - unsealed_after).bytes
    judge = partial(
        _check_leafless_event, missing_events=retracing.missing_events, compute_mac=compute_mac, overdue_id=overdue
    )
    yield from _add_to_summary(_verify_remaining_rows(size, seals, judge, summary=summary), summary)


def _add_to_summary(
    findings: Iterator[LogFinding] | Sequence[LogFinding], summary: VerificationSummary
) -> Iterator[LogFinding]:
    for finding in findings:
        summary.counts_by_kind[finding.kind] += 1
        yield finding


def _verify_remaining_rows(
    size: int,
    checkpoints: "_CheckpointVerifier",
    check_leafless: Callable[[RawEvent], LogFinding | None],
    *,
    summary: VerificationSummary,
) -> Iterator[LogFinding]:
    """Yield what is wrong beside the sealed leaves. What a sealer has appended meanwhile, its checkpoint covers."""
    beyond = list(read_leaves_beyond(size, limit=_MAX_REPORTED_ROWS))
    nodes = list(AuditNode.objects.filter(_build_extra_nodes_filter(size))[:_MAX_REPORTED_ROWS])
    covered, findings = checkpoints.verify_remaining(size)
    yield from findings
    for leaf in beyond:
        if not size <= leaf.leaf_index < covered:
            id_, text = format_event_id(leaf.event_id), "No checkpoint covers this leaf."
            yield LogFinding(kind=FindingKind.LEAF_EXTRA, leaf_index=leaf.leaf_index, event_id=id_, text=text)
    for node in nodes:
        if node.node_index < 0 or (node.node_index + 1) << node.level > covered or node.level not in STORED_LEVELS:
            text = f"A node {node.node_index} of level {node.level} is kept, and the log has no such leaves."
            yield LogFinding(kind=FindingKind.NODE_ALTERED, text=text)
    for event in read_leafless_events(covered):
        finding = check_leafless(event)
        if finding is None:
            summary.waiting += 1
        else:
            yield finding
    for id_bytes in read_orphaned_queue_ids():
        text = "It is gone, and was not sealed yet."
        yield LogFinding(kind=FindingKind.EVENT_MISSING, event_id=format_event_id(id_bytes), text=text)


def _build_extra_nodes_filter(size: int) -> Q:
    """Return what finds kept nodes over leaves that the log does not have."""
    beyond = Q(node_index__lt=0) | ~Q(level__in=STORED_LEVELS)
    for level in STORED_LEVELS:
        beyond |= Q(level=level, node_index__gte=size >> level)
    return beyond


def _count_leaves_to_read(verified_size: int) -> int:
    """Return how many leaves are read: beyond the verified ones as many as a checkpoint covers that may be no good."""
    covered = max((row.tree_size for row in read_checkpoints(verified_size, limit=1, newest_first=True)), default=0)
    further = AuditLeaf.objects.filter(
        leaf_index__gte=verified_size, leaf_index__lt=max(covered, verified_size)
    ).count()
    return verified_size + further


class _CheckpointVerifier:
    """The checkpoints of the database, in their order."""

    def __init__(self, keys: Sequence[Ed25519PublicKey], restores: Mapping[int, LogRestore]) -> None:
        self._keys = keys
        self._restores = restores
        self._epoch = 1
        self._previous_size = 0

    def get_newest_size(self) -> int:
        """Return the size of the newest checkpoint that verifies; 0 where none does."""
        rows = read_checkpoints(-1, limit=1, newest_first=True)
        while rows:
            if isinstance(self._verify_signature(rows[0]), Checkpoint):
                return rows[0].tree_size
            rows = read_checkpoints(-1, limit=1, newest_first=True, below_size=rows[0].tree_size)
        return 0

    def verify_chunk(self, start: int, size: int) -> tuple[list[KnownRoot], list[LogFinding], int]:
        """Return the roots that were signed beyond start, what is wrong with their checkpoints, and how far to read."""
        stops: list[KnownRoot] = []
        findings: list[LogFinding] = []
        for row in self._read_after(start):
            if row.tree_size > min(size, start + 2 * LEAVES_PER_CHUNK):
                break
            stop, faults = self._verify_row(row)
            findings += faults
            stops += [stop] if stop else []
            if row.tree_size >= start + LEAVES_PER_CHUNK:
                return stops, findings, row.tree_size
        return stops, findings, min(size, start + 2 * LEAVES_PER_CHUNK)

    def verify_remaining(self, size: int) -> tuple[int, list[LogFinding]]:
        """Return how many leaves good checkpoints cover by now, and what is wrong with those beyond size."""
        covered, findings = size, []
        for row in self._read_after(size):
            stop, faults = self._verify_row(row)
            findings += faults
            covered = stop.tree_size if stop else covered
        return covered, findings

    def _read_after(self, start: int) -> Iterator[RawCheckpoint]:
        while rows := read_checkpoints(start, limit=1000):
            yield from rows
            start = rows[-1].tree_size
            if start < 0:
                return

    def _verify_row(self, row: RawCheckpoint) -> tuple[KnownRoot | None, list[LogFinding]]:
        signed = self._verify_signature(row)
        if isinstance(signed, LogFinding):
            return None, [signed]
        findings = list(self._verify_epoch(row))
        if row.root_hash != signed.root_hash:
            findings.append(
                _build_checkpoint_finding(
                    FindingKind.CHECKPOINT_ALTERED, row, "Its root is not the one that was signed."
                )
            )
        return KnownRoot(signed.tree_size, signed.root_hash), findings

    def _verify_signature(self, row: RawCheckpoint) -> Checkpoint | LogFinding:
        try:
            signed = verify_checkpoint(row.note, self._keys, expected_origin=get_checkpoint_origin(row.epoch))
        except CheckpointInvalid as error:
            return _build_checkpoint_finding(FindingKind.CHECKPOINT_SIGNATURE, row, str(error))
        if signed.tree_size != row.tree_size:
            return _build_checkpoint_finding(
                FindingKind.CHECKPOINT_ALTERED, row, "Its size is not the one that was signed."
            )
        return signed

    def _verify_epoch(self, row: RawCheckpoint) -> Iterator[LogFinding]:
        """An epoch begins with the event that says so."""
        before, self._previous_size = self._previous_size, row.tree_size
        if row.epoch == self._epoch:
            return
        opened = self._restores.get(row.epoch)
        declared = opened is not None and row.epoch > self._epoch and before <= opened.leaf_index < row.tree_size
        self._epoch = row.epoch
        if not declared:
            yield _build_checkpoint_finding(
                FindingKind.EPOCH_UNDECLARED, row, "Its epoch begins without the event that declares it."
            )


def _check_witnessed_checkpoints(
    witnessed_checkpoints: Sequence[Checkpoint], *, size: int, restores: Mapping[int, LogRestore]
) -> tuple[list[KnownRoot], list[LogFinding]]:
    """Tell the outside checkpoints that the log must lead to from those that it can't, and say why."""
    stops: list[KnownRoot] = []
    findings = []
    for each in witnessed_checkpoints:
        epoch = find_epoch(each.origin)
        later = [restores[opened] for opened in sorted(restores) if epoch is not None and opened > epoch]
        if epoch is not None and later and each.tree_size > later[0].leaf_index:
            findings.append(_build_restore_finding(each, epoch, later[0]))
        elif epoch is None or each.tree_size > size:
            findings.append(_build_truncation_finding(each, size))
        else:
            stops.append(KnownRoot(each.tree_size, each.root_hash, is_witnessed=True))
    return stops, findings


def _build_truncation_finding(checkpoint: Checkpoint, tree_size: int) -> LogFinding:
    return LogFinding(
        kind=FindingKind.LOG_TRUNCATED,
        tree_size=checkpoint.tree_size,
        leaf_index=tree_size,
        text=f"A checkpoint of {checkpoint.tree_size} events was kept outside; the log ends at {tree_size}.",
    )


def _build_restore_finding(checkpoint: Checkpoint, epoch: int, restore: LogRestore) -> LogFinding:
    """A checkpoint beyond where a restored log went on: declared, if the declaration reaches as far."""
    lost, lost_epoch = restore.lost_checkpoint, find_epoch(restore.lost_checkpoint.origin) or 0
    reaches = (epoch, checkpoint.tree_size) <= (lost_epoch, lost.tree_size)
    is_another = (epoch, checkpoint.tree_size) == (
        lost_epoch,
        lost.tree_size,
    ) and checkpoint.root_hash != lost.root_hash
    if not reaches or is_another:
        return LogFinding(
            kind=FindingKind.FORK_UNDECLARED,
            tree_size=checkpoint.tree_size,
            leaf_index=restore.leaf_index,
            text=f"The log was restored, and declared {lost.tree_size} events as known outside, not these.",
        )
    return LogFinding(
        kind=FindingKind.FORK_DECLARED,
        tree_size=checkpoint.tree_size,
        leaf_index=restore.leaf_index,
        text=f"The log was restored and says so: of {lost.tree_size} events, {restore.leaf_index} were left.",
    )


def _check_leafless_event(
    event: RawEvent,
    *,
    missing_events: Mapping[bytes, tuple[int, bytes]],
    compute_mac: Callable[[str, bytes], bytes | None],
    overdue_id: bytes,
) -> LogFinding | None:
    """Say what is wrong with an event without a leaf; None when it waits its turn."""
    canonical = event.canonical or b""
    mac = compute_mac(event.mac_key, canonical)
    id_ = format_event_id(event.event_id)
    if lost := missing_events.get(hash_leaf(canonical)):
        text = f"The leaf names event {format_event_id(lost[1])} now, and was made of this one."
        return LogFinding(kind=FindingKind.LEAF_ALTERED, event_id=id_, leaf_index=lost[0], text=text)
    if mac is None:
        text = f"It is not sealed: its MAC key {event.mac_key!a} is not configured."
        return LogFinding(kind=FindingKind.EVENT_KEY_UNKNOWN, event_id=id_, text=text)
    if mac != event.mac:
        return LogFinding(
            kind=FindingKind.EVENT_FORGED, event_id=id_, text="Its MAC does not fit, and it was never sealed."
        )
    if event.event_id < overdue_id:
        return LogFinding(kind=FindingKind.EVENT_UNSEALED, event_id=id_, text="It should have been sealed long ago.")
    return None


def _build_checkpoint_finding(kind: FindingKind, row: RawCheckpoint, text: str) -> LogFinding:
    return LogFinding(kind=kind, tree_size=row.tree_size, text=text)
