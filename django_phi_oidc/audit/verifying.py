"""The whole log, recomputed from the events, in flat memory; each fault by its kind and by the event it is about."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.db.models import Q

from ..entropy import first_uuid7
from ..errors import CheckpointInvalid
from ..merkle.checkpoint import Checkpoint, verify_checkpoint
from ..merkle.rfc6962 import leaf_hash
from .findings import Finding, Kind, Tally, id_text
from .models import AuditLeaf, AuditNode
from .nodes import KEPT_LEVELS
from .reading import (
    RawCheckpoint,
    RawEvent,
    mac_checker,
    read_checkpoints,
    read_leafless,
    read_leaves_beyond,
    read_queued_without_event,
)
from .restoring import Restored, restorations
from .retracing import Archived, Retracing, Stop
from .signing import epoch_of, origin

STRETCH = 50_000
"""Leaves that are held in memory at once; it ends at a checkpoint where there is one in twice as many."""
UNSEALED_AFTER = timedelta(minutes=5)
_MOST_NAMED = 1000


def verify(
    *,
    keys: Sequence[Ed25519PublicKey],
    now: datetime,
    tally: Tally,
    outside: Sequence[Checkpoint] = (),
    archived: Archived = lambda leaf_index: None,
    restored: Sequence[tuple[int, bytes]] = (),
    unsealed_after: timedelta = UNSEALED_AFTER,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Finding]:
    """Yield what is not as it was sealed, and count in tally what was seen.

    outside: checkpoints that were kept elsewhere, their signatures verified by the caller. archived: the canonical
    bytes of an event that is not in the table any more; restored: those among them that tell of a restore, with their
    leaf index. progress: called with the leaves done and their number.
    Requires: nothing else is asked of the trail's connection between two findings. A sealer may run beside it.
    Raises: KeyMissing.
    """
    compute_mac = mac_checker()
    restores = restorations(restored)
    seals = _Seals(keys, restores)
    tally.tree_size = seals.newest()
    size = _size(tally.tree_size)
    retracing = Retracing(compute_mac=compute_mac, archived=archived, tally=tally)
    witnessed, findings = _judge_outside(outside, size=size, restores=restores)
    yield from _counted(findings, tally)
    while retracing.tree.size < size:
        start = retracing.tree.size
        stops, findings, end = seals.stretch(start, size)
        yield from _counted(findings, tally)
        known = [stop for stop in witnessed if start < stop.tree_size <= end]
        both = sorted([*stops, *known], key=lambda stop: (stop.tree_size, stop.outside))
        yield from _counted(retracing.go_on(end, both), tally)
        progress(end, size)
    overdue = first_uuid7(now - unsealed_after).bytes
    judge = partial(_leafless, missing=retracing.missing, compute_mac=compute_mac, overdue=overdue)
    yield from _counted(_around(size, seals, judge, tally=tally), tally)


def _counted(findings: Iterator[Finding] | Sequence[Finding], tally: Tally) -> Iterator[Finding]:
    for finding in findings:
        tally.found[finding.kind] += 1
        yield finding


def _around(
    size: int, seals: "_Seals", judge: Callable[[RawEvent], Finding | None], *, tally: Tally
) -> Iterator[Finding]:
    """Yield what is wrong beside the sealed leaves. What a sealer has appended meanwhile, its checkpoint covers."""
    beyond = list(read_leaves_beyond(size, limit=_MOST_NAMED))
    nodes = list(AuditNode.objects.filter(_beyond(size))[:_MOST_NAMED])
    covered, findings = seals.rest(size)
    yield from findings
    for leaf in beyond:
        if not size <= leaf.leaf_index < covered:
            id_, text = id_text(leaf.event_id), "No checkpoint covers this leaf."
            yield Finding(kind=Kind.LEAF_EXTRA, leaf_index=leaf.leaf_index, event_id=id_, text=text)
    for node in nodes:
        if node.node_index < 0 or (node.node_index + 1) << node.level > covered or node.level not in KEPT_LEVELS:
            text = f"A node {node.node_index} of level {node.level} is kept, and the log has no such leaves."
            yield Finding(kind=Kind.NODE_ALTERED, text=text)
    for event in read_leafless(covered):
        finding = judge(event)
        if finding is None:
            tally.waiting += 1
        else:
            yield finding
    for id_bytes in read_queued_without_event():
        text = "It is gone, and was not sealed yet."
        yield Finding(kind=Kind.EVENT_MISSING, event_id=id_text(id_bytes), text=text)


def _beyond(size: int) -> Q:
    """Return what finds kept nodes over leaves that the log does not have."""
    beyond = Q(node_index__lt=0) | ~Q(level__in=KEPT_LEVELS)
    for level in KEPT_LEVELS:
        beyond |= Q(level=level, node_index__gte=size >> level)
    return beyond


def _size(verified: int) -> int:
    """Return how many leaves are read: beyond the verified ones as many as a checkpoint covers that may be no good."""
    covered = max((row.tree_size for row in read_checkpoints(verified, limit=1, newest_first=True)), default=0)
    further = AuditLeaf.objects.filter(leaf_index__gte=verified, leaf_index__lt=max(covered, verified)).count()
    return verified + further


class _Seals:
    """The checkpoints of the database, in their order."""

    def __init__(self, keys: Sequence[Ed25519PublicKey], restores: Mapping[int, Restored]) -> None:
        self._keys = keys
        self._restores = restores
        self._epoch = 1
        self._before = 0

    def newest(self) -> int:
        """Return the size of the newest checkpoint that verifies; 0 where none does."""
        rows = read_checkpoints(-1, limit=1, newest_first=True)
        while rows:
            if isinstance(self._verified(rows[0]), Checkpoint):
                return rows[0].tree_size
            rows = read_checkpoints(-1, limit=1, newest_first=True, below=rows[0].tree_size)
        return 0

    def stretch(self, start: int, size: int) -> tuple[list[Stop], list[Finding], int]:
        """Return the roots that were signed beyond start, what is wrong with their checkpoints, and how far to read."""
        stops: list[Stop] = []
        findings: list[Finding] = []
        for row in self._beyond(start):
            if row.tree_size > min(size, start + 2 * STRETCH):
                break
            stop, faults = self._judge(row)
            findings += faults
            stops += [stop] if stop else []
            if row.tree_size >= start + STRETCH:
                return stops, findings, row.tree_size
        return stops, findings, min(size, start + 2 * STRETCH)

    def rest(self, size: int) -> tuple[int, list[Finding]]:
        """Return how many leaves good checkpoints cover by now, and what is wrong with those beyond size."""
        covered, findings = size, []
        for row in self._beyond(size):
            stop, faults = self._judge(row)
            findings += faults
            covered = stop.tree_size if stop else covered
        return covered, findings

    def _beyond(self, start: int) -> Iterator[RawCheckpoint]:
        while rows := read_checkpoints(start, limit=1000):
            yield from rows
            start = rows[-1].tree_size
            if start < 0:
                return

    def _judge(self, row: RawCheckpoint) -> tuple[Stop | None, list[Finding]]:
        signed = self._verified(row)
        if isinstance(signed, Finding):
            return None, [signed]
        findings = list(self._epoch_of(row))
        if row.root_hash != signed.root_hash:
            findings.append(_checkpoint(Kind.CHECKPOINT_ALTERED, row, "Its root is not the one that was signed."))
        return Stop(signed.tree_size, signed.root_hash), findings

    def _verified(self, row: RawCheckpoint) -> Checkpoint | Finding:
        try:
            signed = verify_checkpoint(row.note, self._keys, expected_origin=origin(row.epoch))
        except CheckpointInvalid as error:
            return _checkpoint(Kind.CHECKPOINT_SIGNATURE, row, str(error))
        if signed.tree_size != row.tree_size:
            return _checkpoint(Kind.CHECKPOINT_ALTERED, row, "Its size is not the one that was signed.")
        return signed

    def _epoch_of(self, row: RawCheckpoint) -> Iterator[Finding]:
        """An epoch begins with the event that says so."""
        before, self._before = self._before, row.tree_size
        if row.epoch == self._epoch:
            return
        opened = self._restores.get(row.epoch)
        declared = opened is not None and row.epoch > self._epoch and before <= opened.leaf_index < row.tree_size
        self._epoch = row.epoch
        if not declared:
            yield _checkpoint(Kind.EPOCH_UNDECLARED, row, "Its epoch begins without the event that declares it.")


def _judge_outside(
    outside: Sequence[Checkpoint], *, size: int, restores: Mapping[int, Restored]
) -> tuple[list[Stop], list[Finding]]:
    """Tell the outside checkpoints that the log must lead to from those that it can't, and say why."""
    stops: list[Stop] = []
    findings = []
    for each in outside:
        epoch = epoch_of(each.origin)
        later = [restores[opened] for opened in sorted(restores) if epoch is not None and opened > epoch]
        if epoch is not None and later and each.tree_size > later[0].leaf_index:
            findings.append(_lost(each, epoch, later[0]))
        elif epoch is None or each.tree_size > size:
            findings.append(_truncated(each, size))
        else:
            stops.append(Stop(each.tree_size, each.root_hash, outside=True))
    return stops, findings


def _truncated(outside: Checkpoint, tree_size: int) -> Finding:
    return Finding(
        kind=Kind.LOG_TRUNCATED,
        tree_size=outside.tree_size,
        leaf_index=tree_size,
        text=f"A checkpoint of {outside.tree_size} events was kept outside; the log ends at {tree_size}.",
    )


def _lost(outside: Checkpoint, epoch: int, restored: Restored) -> Finding:
    """A checkpoint beyond where a restored log went on: declared, if the declaration reaches as far."""
    lost, lost_epoch = restored.lost, epoch_of(restored.lost.origin) or 0
    reaches = (epoch, outside.tree_size) <= (lost_epoch, lost.tree_size)
    is_another = (epoch, outside.tree_size) == (lost_epoch, lost.tree_size) and outside.root_hash != lost.root_hash
    if not reaches or is_another:
        return Finding(
            kind=Kind.FORK_UNDECLARED,
            tree_size=outside.tree_size,
            leaf_index=restored.leaf_index,
            text=f"The log was restored, and declared {lost.tree_size} events as known outside, not these.",
        )
    return Finding(
        kind=Kind.FORK_DECLARED,
        tree_size=outside.tree_size,
        leaf_index=restored.leaf_index,
        text=f"The log was restored and says so: of {lost.tree_size} events, {restored.leaf_index} were left.",
    )


def _leafless(
    event: RawEvent,
    *,
    missing: Mapping[bytes, tuple[int, bytes]],
    compute_mac: Callable[[str, bytes], bytes | None],
    overdue: bytes,
) -> Finding | None:
    """Say what is wrong with an event without a leaf; None when it waits its turn."""
    canonical = event.canonical or b""
    mac = compute_mac(event.mac_key, canonical)
    id_ = id_text(event.event_id)
    if lost := missing.get(leaf_hash(canonical)):
        text = f"The leaf names event {id_text(lost[1])} now, and was made of this one."
        return Finding(kind=Kind.LEAF_ALTERED, event_id=id_, leaf_index=lost[0], text=text)
    if mac is None:
        text = f"It is not sealed: its MAC key {event.mac_key!a} is not configured."
        return Finding(kind=Kind.EVENT_KEY_UNKNOWN, event_id=id_, text=text)
    if mac != event.mac:
        return Finding(kind=Kind.EVENT_FORGED, event_id=id_, text="Its MAC does not fit, and it was never sealed.")
    if event.event_id < overdue:
        return Finding(kind=Kind.EVENT_UNSEALED, event_id=id_, text="It should have been sealed long ago.")
    return None


def _checkpoint(kind: Kind, row: RawCheckpoint, text: str) -> Finding:
    return Finding(kind=kind, tree_size=row.tree_size, text=text)
