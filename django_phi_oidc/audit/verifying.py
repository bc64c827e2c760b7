"""The whole log, recomputed from the events, in flat memory; each fault by its kind and by the event it is about."""

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.db.models import Max

from ..entropy import first_uuid7
from ..errors import CheckpointInvalid
from ..merkle.checkpoint import Checkpoint, verify_checkpoint
from ..merkle.rfc6962 import MAX_TREE_SIZE, leaf_hash
from .events import Action
from .findings import Finding, Kind, Tally, id_text
from .models import AuditCheckpoint, AuditEvent, AuditLeaf, AuditUnsealed
from .reading import RawEvent, mac_checker, read_leafless
from .retracing import Archived, Retracing, Stop
from .signing import origin

STRETCH = 50_000
"""Leaves that are held in memory at once; it ends at a checkpoint, so the sealer's batch may come on top."""
UNSEALED_AFTER = timedelta(minutes=5)
_MOST_NAMED = 1000


def verify(
    *,
    keys: Sequence[Ed25519PublicKey],
    now: datetime,
    tally: Tally,
    outside: Sequence[Checkpoint] = (),
    archived: Archived = lambda leaf_index: None,
    unsealed_after: timedelta = UNSEALED_AFTER,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Finding]:
    """Yield what is not as it was sealed, and count in tally what was seen.

    outside: checkpoints that were kept elsewhere, their signatures verified by the caller. archived: the canonical
    bytes of an event that is not in the table any more. progress: called with the leaves done and their number.
    Requires: nothing else is asked of the trail's connection between two findings. A sealer may run beside it.
    Raises: KeyMissing.
    """
    for finding in _all(
        keys=keys,
        now=now,
        tally=tally,
        outside=outside,
        archived=archived,
        unsealed_after=unsealed_after,
        progress=progress,
    ):
        tally.found[finding.kind] += 1
        yield finding


def _all(
    *,
    keys: Sequence[Ed25519PublicKey],
    now: datetime,
    tally: Tally,
    outside: Sequence[Checkpoint],
    archived: Archived,
    unsealed_after: timedelta,
    progress: Callable[[int, int], None],
) -> Iterator[Finding]:
    compute_mac = mac_checker()
    seals = _Seals(keys)
    tally.tree_size = seals.newest()
    size = max(tally.tree_size, _size())
    retracing = Retracing(compute_mac=compute_mac, archived=archived, tally=tally)
    witnessed, findings = _judge_outside(outside, tree_size=tally.tree_size)
    yield from findings
    while retracing.tree.size < size:
        start = retracing.tree.size
        end = seals.end_of_stretch(start, size)
        stops, findings = seals.between(start, end)
        yield from findings
        known = [stop for stop in witnessed if start < stop.tree_size <= end]
        yield from retracing.go_on(end, sorted([*stops, *known], key=lambda stop: (stop.tree_size, stop.outside)))
        progress(end, size)
    yield from seals.between(size, MAX_TREE_SIZE)[1]
    yield from _extra_leaves(size)
    overdue = first_uuid7(now - unsealed_after).bytes
    for event in read_leafless():
        finding = _leafless(event, retracing, compute_mac, overdue)
        if finding is None:
            tally.waiting += 1
        else:
            yield finding
    yield from _queued_without_event()


def _size() -> int:
    """Return how many leaves some checkpoint covers, be it a good one or not."""
    leaves = AuditLeaf.objects.aggregate(top=Max("leaf_index"))["top"]
    covered = AuditCheckpoint.objects.aggregate(top=Max("tree_size"))["top"]
    return 0 if leaves is None or covered is None else min(int(leaves) + 1, int(covered))


class _Seals:
    """The checkpoints of the database, in their order."""

    def __init__(self, keys: Sequence[Ed25519PublicKey]) -> None:
        self._keys = keys
        self._epoch = 1

    def newest(self) -> int:
        """Return the size of the newest checkpoint that verifies; 0 where none does."""
        for row in AuditCheckpoint.objects.order_by("-tree_size").iterator(chunk_size=100):
            if isinstance(self._verified(row), Checkpoint):
                return int(row.tree_size)
        return 0

    def end_of_stretch(self, start: int, tree_size: int) -> int:
        """Return the size of the first checkpoint that is STRETCH leaves beyond start, or the last one."""
        later = AuditCheckpoint.objects.filter(tree_size__gte=start + STRETCH, tree_size__lte=tree_size)
        found = later.values_list("tree_size", flat=True).first()
        return tree_size if found is None else int(found)

    def between(self, start: int, end: int) -> tuple[list[Stop], list[Finding]]:
        """Return the sizes in (start, end] whose root was signed, and what is wrong with their checkpoints."""
        stops: list[Stop] = []
        findings: list[Finding] = []
        for row in AuditCheckpoint.objects.filter(tree_size__gt=start, tree_size__lte=end):
            signed = self._verified(row)
            if isinstance(signed, Checkpoint):
                stops.append(Stop(signed.tree_size, signed.root_hash))
                findings += self._epoch_of(row)
            else:
                findings.append(signed)
            if isinstance(signed, Checkpoint) and bytes(row.root_hash) != signed.root_hash:
                findings.append(_checkpoint(Kind.CHECKPOINT_ALTERED, row, "Its root is not the one that was signed."))
        return stops, findings

    def _verified(self, row: AuditCheckpoint) -> Checkpoint | Finding:
        try:
            signed = verify_checkpoint(row.note, self._keys, expected_origin=origin(row.epoch))
        except CheckpointInvalid as error:
            return _checkpoint(Kind.CHECKPOINT_SIGNATURE, row, str(error))
        if signed.tree_size != row.tree_size:
            return _checkpoint(Kind.CHECKPOINT_ALTERED, row, "Its size is not the one that was signed.")
        return signed

    def _epoch_of(self, row: AuditCheckpoint) -> Iterator[Finding]:
        """An epoch begins with the event that says so."""
        if row.epoch == self._epoch:
            return
        declared = row.epoch == self._epoch + 1 and restored_by(row.epoch) is not None
        self._epoch = row.epoch
        if not declared:
            yield _checkpoint(Kind.EPOCH_UNDECLARED, row, "Its epoch begins without the event that declares it.")


def restored_by(epoch: int) -> tuple[int, Checkpoint] | None:
    """Return the leaf index of the event that opened that epoch, and the checkpoint that was lost to it."""
    first = AuditCheckpoint.objects.filter(epoch=epoch).first()
    before = AuditCheckpoint.objects.filter(epoch__lt=epoch).aggregate(top=Max("tree_size"))["top"] or 0
    if first is None:
        return None
    leaf = AuditLeaf.objects.filter(leaf_index=before).first()
    event = AuditEvent.objects.filter(id=leaf.event_id, action=Action.AUDIT_RESTORED).first() if leaf else None
    if event is None:
        return None
    detail = json.loads(event.detail)
    if detail.get("epoch") != epoch:
        return None
    lost = Checkpoint(
        origin=origin(epoch - 1), tree_size=detail["tree_size"], root_hash=bytes.fromhex(detail["root_hash"])
    )
    return before, lost


def _judge_outside(outside: Sequence[Checkpoint], *, tree_size: int) -> tuple[list[Stop], list[Finding]]:
    """Tell the outside checkpoints that the log must lead to from those that it can't, and say why."""
    stops: list[Stop] = []
    findings = []
    epoch = AuditCheckpoint.objects.aggregate(top=Max("epoch"))["top"] or 1
    for each in outside:
        ended = next((restored_by(of + 1) for of in range(1, epoch) if origin(of) == each.origin), None)
        if ended is None and each.tree_size > tree_size:
            findings.append(_truncated(each, tree_size))
        elif ended is None or each.tree_size <= ended[0]:
            stops.append(Stop(each.tree_size, each.root_hash, outside=True))
        else:
            findings.append(_lost(each, *ended))
    return stops, findings


def _truncated(outside: Checkpoint, tree_size: int) -> Finding:
    return Finding(
        kind=Kind.LOG_TRUNCATED,
        tree_size=outside.tree_size,
        leaf_index=tree_size,
        text=f"A checkpoint of {outside.tree_size} events was kept outside; the log ends at {tree_size}.",
    )


def _lost(outside: Checkpoint, continued_at: int, lost: Checkpoint) -> Finding:
    """A checkpoint beyond where a restored log went on: declared, if the declaration reaches as far."""
    fits = outside.root_hash == lost.root_hash if outside.tree_size == lost.tree_size else True
    if outside.tree_size > lost.tree_size or not fits:
        return Finding(
            kind=Kind.FORK_UNDECLARED,
            tree_size=outside.tree_size,
            leaf_index=continued_at,
            text=f"The log was restored, and declared {lost.tree_size} events as known outside, not these.",
        )
    return Finding(
        kind=Kind.FORK_DECLARED,
        tree_size=outside.tree_size,
        leaf_index=continued_at,
        text=f"The log was restored and says so: of {lost.tree_size} events, {continued_at} were left.",
    )


def _extra_leaves(tree_size: int) -> Iterator[Finding]:
    for leaf in AuditLeaf.objects.filter(leaf_index__gte=tree_size)[:_MOST_NAMED]:
        yield Finding(
            kind=Kind.LEAF_EXTRA,
            leaf_index=leaf.leaf_index,
            event_id=str(leaf.event_id),
            text="No checkpoint covers this leaf.",
        )


def _leafless(
    event: RawEvent, retracing: Retracing, compute_mac: Callable[[str, bytes], bytes | None], overdue: bytes
) -> Finding | None:
    """Say what is wrong with an event without a leaf; None when it waits its turn."""
    canonical = event.canonical or b""
    mac = compute_mac(event.mac_key, canonical)
    id_ = id_text(event.event_id)
    if lost := retracing.missing.get(leaf_hash(canonical)):
        text = f"The leaf names event {id_text(lost[1])} now, and was made of this one."
        return Finding(kind=Kind.LEAF_ALTERED, event_id=id_, leaf_index=lost[0], text=text)
    if mac is None:
        text = f"It is not sealed: its MAC key {event.mac_key} is not configured."
        return Finding(kind=Kind.EVENT_KEY_UNKNOWN, event_id=id_, text=text)
    if mac != event.mac:
        return Finding(kind=Kind.EVENT_FORGED, event_id=id_, text="Its MAC does not fit, and it was never sealed.")
    if event.event_id < overdue:
        return Finding(kind=Kind.EVENT_UNSEALED, event_id=id_, text="It should have been sealed long ago.")
    return None


def _queued_without_event() -> Iterator[Finding]:
    """An event that was deleted before it was sealed is still in the queue."""
    last = uuid.UUID(int=0)
    while ids := list(
        AuditUnsealed.objects.filter(event_id__gt=last).order_by("event_id").values_list("event_id", flat=True)[:1000]
    ):
        last = ids[-1]
        there = set(AuditEvent.objects.filter(id__in=ids).values_list("id", flat=True))
        for id_ in ids:
            if id_ not in there:
                yield Finding(kind=Kind.EVENT_MISSING, event_id=str(id_), text="It is gone, and was not sealed yet.")


def _checkpoint(kind: Kind, row: AuditCheckpoint, text: str) -> Finding:
    return Finding(kind=kind, tree_size=row.tree_size, text=text)
