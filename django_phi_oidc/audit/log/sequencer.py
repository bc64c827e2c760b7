"""Events become leaves of the log, and a checkpoint is signed over them: one transaction, one sealer at a time.

What is new lies in a queue that the events' own transactions fill, so the work is proportional to it. A crash leaves
the queue as it was. Nothing is sealed on top of a log that is not the continuation of what was signed before.

The log's end: what was signed last, looked at before anything is appended, and one transaction in which it grows.

One sealer at a time. Nothing is signed on top of a log that is not the continuation of what was signed before, by a
known key, here or outside.
"""

import logging
import struct
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from django.db import IntegrityError, connections, transaction
from django.db.models import Max

from ..._internal.randomness import lowest_uuid7
from ..._internal.sql import insert
from ...errors import CheckpointInvalid, SealingRefused
from ...merkle.checkpoint import Checkpoint, sign_checkpoint, verify_checkpoint
from ...merkle.compact import CompactRange
from ...merkle.proof import compute_root_at_size
from ...merkle.rfc6962 import hash_leaf
from ..events import Action, AuthenticatedEvent, NewEvent, Origin
from ..models import AuditCheckpoint, AuditLeaf, AuditUnsealed
from ..router import AUDIT_ALIAS
from ..storage import authenticate_event, build_rows, log_events, translate_database_errors
from .keys import get_checkpoint_origin, get_public_keys
from .reader import RawEvent, create_mac_calculator, read_checkpoints, read_queue
from .tree_storage import STORED_LEVELS, LogDamaged, build_node_rows, read_compact_range, read_node
from .witness import get_witnessed_checkpoints, write_witness_file

logger = logging.getLogger("phi_oidc.audit")
_ADVISORY_LOCK_ID = 0x7068695F6F696463
"""Of pg_advisory_xact_lock: "phi_oidc"."""
_COPY_ROW = struct.Struct(">hiqi16si32s")
_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TRAILER = b"\xff\xff"
_COPY_CHUNK_SIZE = 5_000
"""Leaves that are handed over at once."""
Leaf = tuple[bytes, bytes]
"""The 16 bytes of an event's id, and its leaf hash."""


@dataclass(frozen=True, slots=True)
class LogState:
    epoch: int
    compact_range: CompactRange


@contextmanager
def exclusive_transaction() -> Iterator[None]:
    """One transaction of the trail's database that no other sealer is in. Raises: RuntimeError inside of another."""
    connection = connections[AUDIT_ALIAS]
    try:
        with transaction.atomic(using=AUDIT_ALIAS, durable=True), connection.cursor() as cursor:
            # On SQLite the transaction itself is exclusive, being IMMEDIATE.
            if connection.vendor == "postgresql":
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_ADVISORY_LOCK_ID])
            yield
    except (LogDamaged, IntegrityError) as error:
        raise SealingRefused("The log is damaged, and nothing is sealed on top: `audit verify` tells more.") from error


def get_current_log(key: Ed25519PrivateKey) -> LogState:
    """Return the log as it was signed last, and as the outside knows it. Raises: SealingRefused, LogDamaged."""
    keys = get_public_keys(key)
    log = get_last_signed_log(keys)
    for epoch, known in get_witnessed_checkpoints(keys).items():
        if epoch > log.epoch or (epoch == log.epoch and not is_consistent_with(log.compact_range, known)):
            raise SealingRefused(
                f"A checkpoint of {known.tree_size} events is known outside, of {known.origin}, which this log does "
                "not continue. If it was restored from a backup, `audit resume` goes on with it and says so for good."
            )
    return log


def get_last_signed_log(keys: Sequence[Ed25519PublicKey]) -> LogState:
    """Return the log as it was signed last. Raises: SealingRefused, LogDamaged."""
    rows = read_checkpoints(-1, limit=1, newest_first=True)
    size = AuditLeaf.objects.aggregate(top=Max("leaf_index"))["top"]
    covered = rows[0].tree_size if rows else 0
    if (0 if size is None else size + 1) != covered:
        raise SealingRefused("There are more or fewer leaves than the last checkpoint has: `audit verify` tells more.")
    if not rows:
        return LogState(epoch=1, compact_range=CompactRange())
    try:
        signed = verify_checkpoint(rows[0].note, keys, expected_origin=get_checkpoint_origin(rows[0].epoch))
    except CheckpointInvalid as error:
        raise SealingRefused(
            "The last checkpoint is not signed by a known key, or has another origin than PHI_OIDC['AUDIT']['origin']."
        ) from error
    log = LogState(epoch=rows[0].epoch, compact_range=read_compact_range(covered))
    if (signed.tree_size, signed.root_hash) != (covered, log.compact_range.compute_root()):
        raise SealingRefused("The leaves do not lead to the last checkpoint: `audit verify` tells more.")
    return log


def is_consistent_with(compact_range: CompactRange, checkpoint: Checkpoint) -> bool:
    if checkpoint.tree_size > compact_range.size:
        return False
    return compute_root_at_size(checkpoint.tree_size, read_node) == checkpoint.root_hash


def append_leaves(log: LogState, leaves: Sequence[Leaf], *, key: Ed25519PrivateKey, now: datetime) -> str:
    """Write leaves (by ascending id), nodes and the checkpoint, empty the queue of them, and return the note."""
    first = log.compact_range.size
    with _insert_leaves(first, leaves):
        completed = log.compact_range.extend([hash_ for _, hash_ in leaves], kept_levels=STORED_LEVELS)
    if nodes := build_node_rows(completed):
        insert(nodes, using=AUDIT_ALIAS)
    signed = Checkpoint(
        origin=get_checkpoint_origin(log.epoch),
        tree_size=log.compact_range.size,
        root_hash=log.compact_range.compute_root(),
    )
    note = sign_checkpoint(signed, key)
    row = AuditCheckpoint(
        tree_size=signed.tree_size, root_hash=signed.root_hash, epoch=log.epoch, sealed_at=now, note=note
    )
    insert([row], using=AUDIT_ALIAS)
    _delete_from_queue(leaves, first)
    return note


def _delete_from_queue(leaves: Sequence[Leaf], first_leaf_index: int) -> None:
    connection = connections[AUDIT_ALIAS]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # Both sides are read once; what the reading of events has set would look up each one.
            cursor.execute("SET LOCAL enable_hashjoin = on; SET LOCAL enable_nestloop = off")
        cursor.execute(
            # The bounds keep it from reading the whole of a long queue.
            "DELETE FROM django_phi_oidc_auditunsealed WHERE event_id BETWEEN %s AND %s AND event_id IN "
            "(SELECT event_id FROM django_phi_oidc_auditleaf WHERE leaf_index >= %s)",
            [leaves[0][0].hex(), leaves[-1][0].hex(), first_leaf_index],
        )


@contextmanager
def _insert_leaves(first_leaf_index: int, leaves: Sequence[Leaf]) -> Iterator[None]:
    """Insert the leaves, which are there after the block; PostgreSQL is still at it while the block runs."""
    connection = connections[AUDIT_ALIAS]
    with connection.cursor() as cursor:
        if connection.vendor != "postgresql":
            cursor.executemany(
                "INSERT INTO django_phi_oidc_auditleaf (leaf_index, event_id, leaf_hash) VALUES (%s, %s, %s)",
                [(index, id_.hex(), hash_) for index, (id_, hash_) in enumerate(leaves, start=first_leaf_index)],
            )
            yield
            return
        columns = "django_phi_oidc_auditleaf (leaf_index, event_id, leaf_hash)"
        with connection.wrap_database_errors, cursor.copy(f"COPY {columns} FROM STDIN (FORMAT BINARY)") as copy:
            for start in range(0, len(leaves), _COPY_CHUNK_SIZE):
                piece = enumerate(leaves[start : start + _COPY_CHUNK_SIZE], start=first_leaf_index + start)
                rows = [_COPY_ROW.pack(3, 8, index, 16, id_, 32, hash_) for index, (id_, hash_) in piece]
                copy.write(b"".join((b"" if start else _COPY_HEADER, *rows)))
            copy.write(_COPY_TRAILER)
            yield


def update_witness_file(note: str) -> None:
    """A checkpoint that the file could not take stands all the same; the next one tries again."""
    try:
        write_witness_file(note)
    except OSError:
        logger.exception("The witness file can't be written.")


UUID_BYTES = 16
BATCH_SIZE = 50_000
"""Events in one transaction and under one checkpoint, at most."""
MAX_SEALING_DELAY = timedelta(minutes=5)
"""An event that waits for longer has an alert."""
_LOWEST_ID = uuid.UUID(int=0)
_UPDATE_CHUNK_SIZE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendResult:
    """What one transaction of the sealer came to."""

    event_count: int = 0
    refused_count: int = 0
    """Events whose MAC does not fit, or whose MAC key is not configured."""
    note: str = ""
    """The new checkpoint; empty where nothing was new."""
    last_event_id: uuid.UUID | None = None
    """The largest id that was looked at."""


@dataclass(slots=True)
class _CheckedBatch:
    leaves: list[Leaf] = field(default_factory=list)
    forged_ids: list[bytes] = field(default_factory=list)
    unverifiable_ids: list[bytes] = field(default_factory=list)
    last_id: bytes = b""


def append_to_log(
    *,
    key: Ed25519PrivateKey,
    now: datetime,
    limit: int = BATCH_SIZE,
    include_refused: bool = False,
    after_id: uuid.UUID = _LOWEST_ID,
) -> AppendResult:
    """Seal up to limit events that are committed and not sealed, and return what became of it.

    refused, after: look again at events that were refused before, those with an id beyond after, as when a missing MAC
    key was put back.
    Raises: SealingRefused when the log as it stands is not what was signed last, here or outside; KeyMissing.
    """
    with exclusive_transaction():
        log = get_current_log(key)
        batch = _check_macs(read_queue(after_id=after_id, limit=limit, include_refused=include_refused))
        note = append_leaves(log, batch.leaves, key=key, now=now) if batch.leaves else ""
        alerts = _mark_refused(batch, now=now)
    log_events(alerts)
    if note:
        update_witness_file(note)
    return AppendResult(
        event_count=len(batch.leaves),
        refused_count=len(batch.forged_ids) + len(batch.unverifiable_ids),
        note=note,
        last_event_id=_parse_uuid(batch.last_id) if batch.last_id else None,
    )


def append_all_to_log(
    *, key: Ed25519PrivateKey, clock: Callable[[], datetime], retry_refused: bool = False
) -> Iterator[AppendResult]:
    """Seal until nothing is new, and yield what became of each transaction.

    again: first put every event without a leaf into the queue that is not there, and look at refused ones once more.
    Raises: what `seal` does.
    """
    last: uuid.UUID | None = _LOWEST_ID if retry_refused else None
    if retry_refused:
        _rebuild_queue()
    while last is not None:
        done = append_to_log(key=key, now=clock(), include_refused=True, after_id=last)
        last = done.last_event_id
        yield done
    while True:
        done = append_to_log(key=key, now=clock())
        yield done
        if done.event_count + done.refused_count < BATCH_SIZE:
            return


def count_overdue_events(*, now: datetime) -> int:
    """Return how many events have waited longer than LAG to be sealed. Raises: AuditUnavailable."""
    with translate_database_errors():
        return AuditUnsealed.objects.filter(refused=False, event_id__lt=lowest_uuid7(now - MAX_SEALING_DELAY)).count()


def _check_macs(events: Iterable[RawEvent]) -> _CheckedBatch:
    """Tell the events whose MAC fits from the others."""
    batch, compute_mac = _CheckedBatch(), create_mac_calculator()
    for _, event_id, _, mac_key, mac, canonical in events:
        if len(event_id) != UUID_BYTES:
            # No UUID, which SQLite alone can hold: `audit verify` names it.
            continue
        batch.last_id = event_id
        computed = compute_mac(mac_key, canonical or b"")
        if canonical and computed == mac:
            batch.leaves.append((event_id, hash_leaf(canonical)))
        elif computed is None:
            batch.unverifiable_ids.append(event_id)
        else:
            batch.forged_ids.append(event_id)
    return batch


def _mark_refused(batch: _CheckedBatch, *, now: datetime) -> list[AuthenticatedEvent]:
    """Mark what is not sealed, so that each run does not look at it again, and raise an alert for each kind."""
    alerts = []
    for rule, ids in (("event_forged", batch.forged_ids), ("event_key_unknown", batch.unverifiable_ids)):
        marked = sum(
            AuditUnsealed.objects.filter(event_id__in=part, refused=False).update(refused=True)
            for part in _chunk_ids(ids)
        )
        if marked:
            act = NewEvent(
                action=Action.ALERT_RAISED,
                origin=Origin(),
                now=now,
                resource=f"AuditEvent/{_parse_uuid(ids[0])}",
                detail={"rule": rule, "count": len(ids)},
            )
            alerts.append(authenticate_event(act))
    if alerts:
        insert(build_rows(alerts), using=AUDIT_ALIAS)
    return alerts


def _rebuild_queue() -> None:
    """Let the queue hold what has no leaf, all of it and nothing else."""
    with transaction.atomic(using=AUDIT_ALIAS), connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(
            "INSERT INTO django_phi_oidc_auditunsealed (event_id) SELECT e.id FROM django_phi_oidc_auditevent e "
            "LEFT JOIN django_phi_oidc_auditleaf l ON l.event_id = e.id WHERE l.event_id IS NULL "
            "ON CONFLICT DO NOTHING"
        )
        cursor.execute(
            "DELETE FROM django_phi_oidc_auditunsealed "
            "WHERE event_id IN (SELECT event_id FROM django_phi_oidc_auditleaf)"
        )


def _chunk_ids(ids: Sequence[bytes]) -> Iterator[list[uuid.UUID]]:
    """Yield ids in parts that any database takes in one statement."""
    for start in range(0, len(ids), _UPDATE_CHUNK_SIZE):
        yield [_parse_uuid(id_) for id_ in ids[start : start + _UPDATE_CHUNK_SIZE]]


def _parse_uuid(raw: bytes) -> uuid.UUID:
    return uuid.UUID(bytes=raw)
