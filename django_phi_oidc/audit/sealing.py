"""Events become leaves of the log, and a checkpoint is signed over them: one transaction, one sealer at a time.

What is new lies in a queue that the events' own transactions fill, so the work is proportional to it. A crash leaves
the queue as it was. Nothing is sealed on top of a log that is not the continuation of what was signed before.
"""

import hmac
import logging
import struct
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import connections, transaction
from django.db.models import Max

from ..entropy import first_uuid7
from ..errors import CheckpointInvalid, SealingRefused
from ..merkle.checkpoint import Checkpoint, parse_checkpoint, sign_checkpoint, verify_checkpoint
from ..merkle.compact import CompactRange
from ..merkle.proof import root_at
from ..merkle.rfc6962 import leaf_hash
from ..statements import insert
from .events import Act, Action, Finished, Origin, canonical_bytes
from .models import AuditCheckpoint, AuditEvent, AuditLeaf, AuditUnsealed
from .nodes import KEPT_LEVELS, LogDamaged, kept_rows, range_at, read_node
from .reading import RawEvent, mac_checker, read_queue
from .routing import AUDIT_ALIAS
from .signing import origin
from .witnessing import known_outside, write_witness_file
from .writing import commit, finish, reaching_the_trail, rows_of, tell

logger = logging.getLogger("phi_oidc.audit")
UUID_BYTES = 16
BATCH = 50_000
"""Events in one transaction and under one checkpoint, at most."""
LAG = timedelta(minutes=5)
"""An event that waits for longer has an alert."""
QUIET = timedelta(hours=1)
_LAGGING = "sealing_lag"
_LOCK = 0x7068695F6F696463
"""Of pg_advisory_xact_lock: "phi_oidc"."""
_LEAF = struct.Struct(">hiqi16si32s")
_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TRAILER = b"\xff\xff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What one transaction of the sealer came to."""

    events: int = 0
    refused: int = 0
    """Events whose MAC does not fit, or whose MAC key is not configured."""
    note: str = ""
    """The new checkpoint; empty where nothing was new."""


@dataclass(slots=True)
class _Batch:
    ids: list[bytes] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    forged: list[bytes] = field(default_factory=list)
    unverifiable: list[bytes] = field(default_factory=list)
    sealed_before: list[bytes] = field(default_factory=list)


def seal(*, key: Ed25519PrivateKey, now: datetime, limit: int = BATCH, refused: bool = False) -> Sealed:
    """Seal up to limit events that are committed and not sealed, and return what became of it.

    refused: look again at events that were refused before, as after a missing MAC key was put back.
    Raises: SealingRefused when the log as it stands is not what was signed last, here or outside; KeyMissing.
    """
    with _alone():
        log = _current(key)
        batch = _sort(read_queue(after=uuid.UUID(int=0), limit=limit, refused=refused))
        note = _append(log, batch, key=key, now=now) if batch.ids else ""
        alerts = _set_aside(batch, now=now)
        if batch.sealed_before:
            AuditUnsealed.objects.filter(event_id__in=map(_uuid, batch.sealed_before)).delete()
    tell(alerts)
    if note:
        _tell_witness(note)
    return Sealed(events=len(batch.ids), refused=len(batch.forged) + len(batch.unverifiable), note=note)


def seal_all(*, key: Ed25519PrivateKey, clock: Callable[[], datetime], refused: bool = False) -> Iterator[Sealed]:
    """Seal until nothing is new, and yield what became of each transaction. Raises: what `seal` does."""
    if refused:
        yield seal(key=key, now=clock(), limit=max(BATCH, AuditUnsealed.objects.count()), refused=True)
    while True:
        done = seal(key=key, now=clock())
        yield done
        if done.events + done.refused < BATCH:
            return


def resume(*, outside: str, why: str, key: Ed25519PrivateKey, now: datetime) -> str:
    """Open the next epoch of a restored log, and return its first checkpoint.

    outside: the largest checkpoint that is known outside, which the database does not continue. The epoch's first leaf
    is the event `audit.restored` with that checkpoint's size and root, for everybody to see.
    Raises: CheckpointInvalid; SealingRefused when the database does continue it.
    """
    with _alone():
        log = _current(key, checked=False)
        lost = verify_checkpoint(outside, [key.public_key()], expected_origin=origin(log.epoch))
        if _continues(log.range, lost):
            raise SealingRefused("The log continues that checkpoint: there is nothing to resume.")
        detail = {"epoch": log.epoch + 1, "tree_size": lost.tree_size, "root_hash": lost.root_hash.hex(), "why": why}
        restored = finish(Act(action=Action.AUDIT_RESTORED, origin=Origin(), now=now, detail=detail))
        insert(rows_of([restored]), using=AUDIT_ALIAS)
        batch = _Batch(ids=[restored.event.id.bytes], hashes=[leaf_hash(canonical_bytes(restored.event))])
        note = _append(_Log(epoch=log.epoch + 1, range=log.range), batch, key=key, now=now)
    tell([restored])
    _tell_witness(note)
    return note


def tell_of_lag(*, now: datetime) -> int:
    """Return how many events have waited longer than LAG to be sealed; an alert tells of them, once in QUIET.

    Raises: AuditUnavailable.
    """
    with reaching_the_trail():
        late = AuditUnsealed.objects.filter(refused=False, event_id__lt=first_uuid7(now - LAG)).count()
        told = AuditEvent.objects.filter(
            action=Action.ALERT_RAISED, id__gte=first_uuid7(now - QUIET), detail__contains=f'"{_LAGGING}"'
        )
        is_news = late and not told.exists()
    if is_news:
        detail = {"rule": _LAGGING, "count": late}
        commit([finish(Act(action=Action.ALERT_RAISED, origin=Origin(), now=now, detail=detail))])
    return late


@dataclass(frozen=True, slots=True)
class _Log:
    epoch: int
    range: CompactRange


@contextmanager
def _alone() -> Iterator[None]:
    """One transaction of the trail's database that no other sealer is in. Raises: RuntimeError inside of another."""
    connection = connections[AUDIT_ALIAS]
    with transaction.atomic(using=AUDIT_ALIAS, durable=True), connection.cursor() as cursor:
        # On SQLite the transaction itself is exclusive, being IMMEDIATE.
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        try:
            yield
        except LogDamaged as error:
            raise SealingRefused(f"{error} Nothing is sealed on top of that: `audit verify` tells more.") from error


def _current(key: Ed25519PrivateKey, *, checked: bool = True) -> _Log:
    """Return the log as it was signed last. checked: and as the outside knows it.

    Raises: SealingRefused, LogDamaged.
    """
    last = AuditCheckpoint.objects.last()
    size = AuditLeaf.objects.aggregate(top=Max("leaf_index"))["top"]
    if (0 if size is None else size + 1) != (last.tree_size if last else 0):
        raise SealingRefused("There are more or fewer leaves than the last checkpoint has.")
    log = _Log(epoch=last.epoch if last else 1, range=range_at(last.tree_size if last else 0))
    if last:
        try:
            signed = parse_checkpoint(last.note)
        except CheckpointInvalid as error:
            raise SealingRefused("The last checkpoint can't be read.") from error
        if signed.origin != origin(log.epoch):
            raise SealingRefused("The last checkpoint has another origin than PHI_OIDC['AUDIT_ORIGIN'].")
        if (signed.tree_size, signed.root_hash) != (last.tree_size, log.range.root()):
            raise SealingRefused("The leaves do not lead to the last checkpoint.")
    for outside in known_outside(origin(log.epoch)) if checked else ():
        if not _continues(log.range, outside):
            raise SealingRefused(
                f"A checkpoint of {outside.tree_size} events is known outside, which this log does not continue. "
                "If it was restored from a backup, `audit resume` goes on with it and says so for good."
            )
    return log


def _continues(current: CompactRange, outside: Checkpoint) -> bool:
    if outside.tree_size > current.size:
        return False
    return root_at(outside.tree_size, read_node) == outside.root_hash


def _sort(events: Iterable[RawEvent]) -> _Batch:
    """Tell the events whose MAC fits from the others."""
    batch, compute_mac = _Batch(), mac_checker()
    for event in events:
        if len(event.event_id) != UUID_BYTES:
            # No UUID, which SQLite alone can hold: `audit verify` names it.
            continue
        canonical = event.canonical or b""
        mac = compute_mac(event.mac_key, canonical)
        if event.leaf_index >= 0:
            batch.sealed_before.append(event.event_id)
        elif mac is None:
            batch.unverifiable.append(event.event_id)
        elif not hmac.compare_digest(mac, event.mac):
            batch.forged.append(event.event_id)
        else:
            batch.ids.append(event.event_id)
            batch.hashes.append(leaf_hash(canonical))
    return batch


def _append(log: _Log, batch: _Batch, *, key: Ed25519PrivateKey, now: datetime) -> str:
    """Write leaves, nodes and the checkpoint, take the events out of the queue, and return the note."""
    first = log.range.size
    _insert_leaves(first, batch)
    if nodes := kept_rows(log.range.extend(batch.hashes, kept=KEPT_LEVELS)):
        insert(nodes, using=AUDIT_ALIAS)
    signed = Checkpoint(origin=origin(log.epoch), tree_size=log.range.size, root_hash=log.range.root())
    note = sign_checkpoint(signed, key)
    row = AuditCheckpoint(
        tree_size=signed.tree_size, root_hash=signed.root_hash, epoch=log.epoch, sealed_at=now, note=note
    )
    insert([row], using=AUDIT_ALIAS)
    with connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(
            "DELETE FROM django_phi_oidc_auditunsealed WHERE event_id IN "
            "(SELECT event_id FROM django_phi_oidc_auditleaf WHERE leaf_index >= %s)",
            [first],
        )
    return note


def _insert_leaves(first: int, batch: _Batch) -> None:
    numbered = enumerate(zip(batch.ids, batch.hashes, strict=True), start=first)
    connection = connections[AUDIT_ALIAS]
    with connection.cursor() as cursor:
        if connection.vendor != "postgresql":
            cursor.executemany(
                "INSERT INTO django_phi_oidc_auditleaf (leaf_index, event_id, leaf_hash) VALUES (%s, %s, %s)",
                [(index, id_.hex(), hash_) for index, (id_, hash_) in numbered],
            )
            return
        columns = "django_phi_oidc_auditleaf (leaf_index, event_id, leaf_hash)"
        with cursor.copy(f"COPY {columns} FROM STDIN (FORMAT BINARY)") as copy:
            rows = [_LEAF.pack(3, 8, index, 16, id_, 32, hash_) for index, (id_, hash_) in numbered]
            copy.write(b"".join((_COPY_HEADER, *rows, _COPY_TRAILER)))


def _set_aside(batch: _Batch, *, now: datetime) -> list[Finished]:
    """Mark what is not sealed, so that each run does not look at it again, and raise an alert for each kind."""
    alerts = []
    for rule, ids in (("event_forged", batch.forged), ("event_key_unknown", batch.unverifiable)):
        if ids and AuditUnsealed.objects.filter(event_id__in=map(_uuid, ids), refused=False).update(refused=True):
            act = Act(
                action=Action.ALERT_RAISED,
                origin=Origin(),
                now=now,
                resource=f"AuditEvent/{_uuid(ids[0])}",
                detail={"rule": rule, "count": len(ids)},
            )
            alerts.append(finish(act))
    if alerts:
        insert(rows_of(alerts), using=AUDIT_ALIAS)
    return alerts


def _tell_witness(note: str) -> None:
    """A checkpoint that the file could not take stands all the same; the next one tries again."""
    try:
        write_witness_file(note)
    except OSError:
        logger.exception("The witness file can't be written.")


def _uuid(raw: bytes) -> uuid.UUID:
    return uuid.UUID(bytes=raw)
