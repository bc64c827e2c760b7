"""Append committed events to the Merkle log and sign a checkpoint over them, in one transaction.

New events are in a queue that a trigger fills in the transaction of each event, so the work is
proportional to what is new, and a crash leaves the queue unchanged. Only one process appends at a
time, and nothing is signed unless the log continues what was signed before by a known key, in the
database or outside of it.
"""

import logging
import struct
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, OperationalError, connections, transaction
from django.db.models import Max

from ..._internal.inserts import RowNotStored, insert, require_rows
from ..._internal.randomness import lowest_uuid7
from ..._internal.sql import is_lock_timeout
from ...crypto import keyring
from ...errors import AuditUnavailable
from ..errors import CheckpointInvalid, LogDamaged, SealingRefused
from ..events import (
    Action,
    AuthenticatedEvent,
    NewEvent,
    Origin,
    canonical_bytes,
    has_plain_columns,
    has_time_of_id,
    is_declaration,
    is_valid_event,
)
from ..merkle.checkpoint import Checkpoint, LogKey, NoteSigner, sign_checkpoint, verify_checkpoint
from ..merkle.compact import CompactRange
from ..merkle.proof import compute_root_at_size
from ..merkle.rfc6962 import hash_leaf
from ..models import AuditCheckpoint, AuditLeaf, AuditUnsealed
from ..recorder import raise_audit_alert
from ..router import AUDIT_ALIAS
from ..storage import authenticate_event, build_rows, log_events, translate_database_errors
from .reader import (
    UUID_BYTES,
    RawEvent,
    create_mac_calculator,
    read_checkpoints,
    read_queue,
    read_unqueued_events,
)
from .signing_keys import get_checkpoint_origin, get_public_keys
from .tree_storage import STORED_LEVELS, build_node_rows, read_compact_range, read_nodes
from .witness import get_witnessed_checkpoints, write_witness_file

logger = logging.getLogger("phi_oidc.audit")
LOCK_WAIT_SECONDS = 10.0
"""How long a sequencer waits for another one, on PostgreSQL."""
STALLED_AFTER = timedelta(minutes=5)
"""A sequencer whose transaction takes longer was stopped, or hangs: the next one ends its database
session.
"""
_BEGIN_WAIT = """
    SELECT set_config('lock_timeout', %s, true), ARRAY(
        SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
        WHERE l.relation = 'phi_oidc_audit_auditunsealed'::regclass AND l.mode = 'ShareUpdateExclusiveLock'
        AND l.granted AND a.datname = current_database() AND a.usename = session_user
        AND a.xact_start < clock_timestamp() - make_interval(secs => %s))
"""  # noqa: E501
# A lock that conflicts with itself and with no reader or writer of the table. It needs a privilege
# that only the sealer's role has; any role can take an advisory lock, and keep it.
_LOCK_QUEUE = "LOCK TABLE phi_oidc_audit_auditunsealed IN SHARE UPDATE EXCLUSIVE MODE"
_COPY_ROW = struct.Struct(">hiqi16si32s")
_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TRAILER = b"\xff\xff"
_COPY_CHUNK_SIZE = 5_000
"""Leaves that are written to COPY at once."""
Leaf = tuple[bytes, bytes]
"""The 16 bytes of an event's id, and the leaf hash."""


@dataclass(frozen=True, slots=True)
class LogState:
    epoch: int
    compact_range: CompactRange


@contextmanager
def exclusive_transaction() -> Iterator[None]:
    """One transaction of the audit database, exclusive among sequencers.

    Raises: RuntimeError inside another one; AuditUnavailable if another sequencer does not end in
    LOCK_WAIT_SECONDS.
    """
    connection = connections[AUDIT_ALIAS]
    try:
        with transaction.atomic(using=AUDIT_ALIAS, durable=True), connection.cursor() as cursor:
            # On SQLite the transaction is IMMEDIATE, and thus already exclusive.
            if connection.vendor == "postgresql":
                cursor.execute(
                    _BEGIN_WAIT,
                    [str(round(LOCK_WAIT_SECONDS * 1000)), STALLED_AFTER.total_seconds()],
                )
                if ended := cursor.fetchone()[1]:
                    logger.error(
                        "Ended %s database sessions that were sealing for too long.", len(ended)
                    )
                cursor.execute(_LOCK_QUEUE)
            yield
    except RowNotStored as error:
        text = (
            "The database does not store what is inserted: a trigger "
            "or a rule was added. Run `audit verify`."
        )
        raise SealingRefused(text) from error
    except OperationalError as error:
        if is_lock_timeout(error):
            raise AuditUnavailable("Another process is sealing the audit log.") from error
        raise
    except (LogDamaged, IntegrityError) as error:
        raise SealingRefused(
            "The log is damaged, and nothing is appended: run `audit verify`."
        ) from error


def get_current_log(key: NoteSigner) -> LogState:
    """Return the log as it was signed last, checked against the witnessed checkpoints. Raises: as
    below.
    """
    keys = get_public_keys(key)
    log = get_last_signed_log(keys)
    for epoch, witnessed in get_witnessed_checkpoints(keys).items():
        if epoch > log.epoch or (
            epoch == log.epoch and not is_consistent_with(log.compact_range, witnessed)
        ):
            raise SealingRefused(
                f"A checkpoint of {witnessed.tree_size} events is known outside, of "
                f"{witnessed.origin}, which this log does not continue. After a restore from a "
                "backup, `audit resume` starts a new epoch and records it."
            )
    return log


def get_last_signed_log(keys: Sequence[LogKey]) -> LogState:
    """Return the log as it was signed last. Raises: SealingRefused, LogDamaged."""
    rows = read_checkpoints(-1, limit=1, newest_first=True)
    last_index = AuditLeaf.objects.aggregate(last=Max("leaf_index"))["last"]

    if rows:
        covered = rows[0].tree_size
    else:
        covered = 0

    if (0 if last_index is None else last_index + 1) != covered:
        raise SealingRefused(
            "The number of leaves is not that of the last checkpoint: run `audit verify`."
        )
    if not rows:
        return LogState(epoch=1, compact_range=CompactRange())
    try:
        signed = verify_checkpoint(
            rows[0].note, keys, expected_origin=get_checkpoint_origin(rows[0].epoch)
        )
    except CheckpointInvalid as error:
        text = (
            "The last checkpoint is not signed by a known key, or has another origin than "
            "PHI_OIDC['AUDIT']['origin']."
        )
        raise SealingRefused(text) from error
    log = LogState(epoch=rows[0].epoch, compact_range=read_compact_range(covered))
    if (signed.tree_size, signed.root_hash) != (covered, log.compact_range.compute_root()):
        raise SealingRefused("The leaves do not lead to the last checkpoint: run `audit verify`.")
    return log


def is_consistent_with(compact_range: CompactRange, checkpoint: Checkpoint) -> bool:
    if checkpoint.tree_size > compact_range.size:
        return False
    return compute_root_at_size(checkpoint.tree_size, read_nodes) == checkpoint.root_hash


def append_declaration(new_event: NewEvent, *, key: NoteSigner) -> None:
    """Record a declaration about the log: insert the event, and put it into the tree, in one
    transaction.

    new_event: of DECLARATION_ACTIONS. Raises: SealingRefused if the log is not what was signed
    last; KeyMissing; AuditUnavailable; ValueError.
    """
    with exclusive_transaction():
        log = get_current_log(key)
        event, note = insert_declaration(log, new_event, key=key)
    log_events([event])
    update_witness_file(note)


def insert_declaration(
    log: LogState, new_event: NewEvent, *, key: NoteSigner
) -> tuple[AuthenticatedEvent, str]:
    """Insert a declaration as the next leaf of `log`, and return it with the new checkpoint.

    Requires: the transaction is exclusive (`exclusive_transaction`).
    """
    event = authenticate_event(new_event, allow_declaration=True)
    insert(build_rows([event]), using=AUDIT_ALIAS)
    leaf = event.event.id.bytes, hash_leaf(canonical_bytes(event.event))
    return event, append_leaves(log, [leaf], key=key, now=new_event.now)


def append_leaves(log: LogState, leaves: Sequence[Leaf], *, key: NoteSigner, now: datetime) -> str:
    """Insert leaves (by ascending id), nodes and the checkpoint, remove them from the queue, and
    return the note.
    """
    first = log.compact_range.size
    with _insert_leaves(first, leaves):
        completed = log.compact_range.extend(
            [hash_ for _, hash_ in leaves], kept_levels=STORED_LEVELS
        )
    if completed:
        insert(build_node_rows(completed), using=AUDIT_ALIAS)
    tree_size = log.compact_range.size
    root_hash = log.compact_range.compute_root()
    checkpoint = Checkpoint(
        origin=get_checkpoint_origin(log.epoch), tree_size=tree_size, root_hash=root_hash
    )
    note = sign_checkpoint(checkpoint, key)
    row = AuditCheckpoint(
        tree_size=tree_size, root_hash=root_hash, epoch=log.epoch, sealed_at=now, note=note
    )
    insert([row], using=AUDIT_ALIAS)
    _delete_from_queue(leaves, first)
    return note


def _delete_from_queue(leaves: Sequence[Leaf], first_leaf_index: int) -> None:
    connection = connections[AUDIT_ALIAS]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # Reads both sides once. The planner settings of the event reader would look up each row
            # instead.
            cursor.execute("SET LOCAL enable_hashjoin = on; SET LOCAL enable_nestloop = off")
        cursor.execute(
            # The bounds avoid reading all of a long queue.
            "DELETE FROM phi_oidc_audit_auditunsealed WHERE event_id BETWEEN %s AND %s AND "
            "event_id IN "
            "(SELECT event_id FROM phi_oidc_audit_auditleaf WHERE leaf_index >= %s)",
            [leaves[0][0].hex(), leaves[-1][0].hex(), first_leaf_index],
        )


@contextmanager
def _insert_leaves(first_leaf_index: int, leaves: Sequence[Leaf]) -> Iterator[None]:
    """Insert the leaves, which exist after the block. PostgreSQL works on them while the block
    runs.
    """
    connection: Any = connections[AUDIT_ALIAS]
    with connection.cursor() as cursor:
        if connection.vendor != "postgresql":
            changes_before = connection.connection.total_changes
            cursor.executemany(
                "INSERT INTO phi_oidc_audit_auditleaf (leaf_index, "
                "event_id, leaf_hash) VALUES (%s, %s, %s)",
                [
                    (index, id_.hex(), hash_)
                    for index, (id_, hash_) in enumerate(leaves, start=first_leaf_index)
                ],
            )
            # No trigger of this table changes rows. Of several executions, rowcount is that of the
            # last one.
            require_rows(connection.connection.total_changes - changes_before, len(leaves))
            yield
            return
        columns = "phi_oidc_audit_auditleaf (leaf_index, event_id, leaf_hash)"
        with (
            connection.wrap_database_errors,
            cursor.copy(f"COPY {columns} FROM STDIN (FORMAT BINARY)") as copy,
        ):
            for start in range(0, len(leaves), _COPY_CHUNK_SIZE):
                chunk = enumerate(
                    leaves[start : start + _COPY_CHUNK_SIZE], start=first_leaf_index + start
                )
                rows = []
                for index, (id_, hash_) in chunk:
                    rows.append(_COPY_ROW.pack(3, 8, index, 16, id_, 32, hash_))
                copy.write(b"".join((b"" if start else _COPY_HEADER, *rows)))
            copy.write(_COPY_TRAILER)
            yield
        require_rows(cursor.rowcount, len(leaves))


def update_witness_file(note: str) -> None:
    """Write the newest checkpoint to the witness file. If that fails it stays valid, and the next
    one tries again.
    """
    try:
        write_witness_file(note)
    except OSError:
        logger.exception("The witness file can't be written.")


BATCH_SIZE = 50_000
"""Maximum number of events in one transaction and under one checkpoint."""
MAX_SEALING_DELAY = timedelta(minutes=5)
"""An event that is unsealed for longer raises an alert."""
HELD_AHEAD = timedelta(minutes=1)
"""An event whose id is further ahead of the sealer's clock is sealed when its time has come."""
MAX_AHEAD = timedelta(days=1)
"""An event whose id is further ahead is refused: no clock is so wrong."""
_QUEUE_CHECK_OVERLAP = timedelta(minutes=1)
"""If a run fails after its seal, those of the next minute check the same events."""
_LONGEST_QUEUE_CHECK = timedelta(days=1)
_UPDATE_CHUNK_SIZE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendResult:
    """The outcome of one transaction of the sequencer."""

    event_count: int = 0
    refused_count: int = 0
    """Events that are not sealed: their MAC is invalid or its key is not configured, or they are no
    events.
    """
    note: str = ""
    """The new checkpoint; empty if there were no new events."""
    last_event_id: uuid.UUID | None = None
    """The largest id that was read."""


@dataclass(slots=True)
class _CheckedBatch:
    leaves: list[Leaf] = field(default_factory=list)
    forged_ids: list[bytes] = field(default_factory=list)
    unverifiable_ids: list[bytes] = field(default_factory=list)
    invalid_ids: list[bytes] = field(default_factory=list)
    """Their MAC is valid, but no code of this app writes them: they would stop readers of the log,
    or are declarations without the signing key.
    """
    retired_key_count: int = 0
    """Events that are sealed, and whose MAC is of another key than the newest."""
    last_id: bytes = b""

    @property
    def refused_count(self) -> int:
        return len(self.forged_ids) + len(self.unverifiable_ids) + len(self.invalid_ids)


def append_to_log(
    *,
    key: NoteSigner,
    now: datetime,
    limit: int = BATCH_SIZE,
    include_refused: bool = False,
    after_id: uuid.UUID | None = None,
) -> AppendResult:
    """Append up to `limit` committed events that have no leaf, and return the outcome.

    include_refused, after_id: also retry refused events with a larger id, such as after a MAC key
    was restored.
    Raises: SealingRefused if the log is not what was signed last, here or outside; KeyMissing;
    AuditUnavailable.
    """
    try:
        return _append_batch(
            key, now, limit=limit, include_refused=include_refused, after_id=after_id
        )
    except SealingRefused as error:
        # A sealed event that was put into the queue again has no effect on the log: the database
        # refuses a second leaf.
        if not isinstance(error.__cause__, IntegrityError) or not _remove_sealed_from_queue():
            raise
    return _append_batch(key, now, limit=limit, include_refused=include_refused, after_id=after_id)


def _append_batch(
    key: NoteSigner, now: datetime, *, limit: int, include_refused: bool, after_id: uuid.UUID | None
) -> AppendResult:
    with exclusive_transaction():
        log = get_current_log(key)
        queue = read_queue(after_id=after_id, limit=limit, include_refused=include_refused)
        batch = _check_macs(queue, now=now)
        if batch.leaves:
            note = append_leaves(log, batch.leaves, key=key, now=now)
        else:
            note = ""

        alerts = _mark_refused(batch, now=now)
    log_events(alerts)
    if note:
        update_witness_file(note)
    if batch.retired_key_count:
        raise_audit_alert("event_key_retired", now=now, count=batch.retired_key_count)

    last_event_id = None
    if batch.last_id:
        last_event_id = uuid.UUID(bytes=batch.last_id)

    return AppendResult(
        event_count=len(batch.leaves),
        refused_count=batch.refused_count,
        note=note,
        last_event_id=last_event_id,
    )


def append_all_to_log(
    *, key: NoteSigner, clock: Callable[[], datetime], retry_refused: bool = False
) -> Iterator[AppendResult]:
    """Append until nothing is new, and yield the outcome of each transaction.

    retry_refused: first queue all events without a leaf, and retry refused ones. Raises: as
    `append_to_log`.
    """
    if retry_refused:
        _rebuild_queue()
        last_id = None
        while True:
            result = append_to_log(key=key, now=clock(), include_refused=True, after_id=last_id)
            yield result
            last_id = result.last_event_id
            if last_id is None:
                break
    while True:
        result = append_to_log(key=key, now=clock())
        yield result
        if result.event_count + result.refused_count < BATCH_SIZE:
            return


def count_overdue_events(*, now: datetime) -> int:
    """Return how many events have been unsealed for longer than MAX_SEALING_DELAY. Raises:
    AuditUnavailable.
    """
    with translate_database_errors():
        return AuditUnsealed.objects.filter(
            refused=False, event_id__lt=lowest_uuid7(now - MAX_SEALING_DELAY)
        ).count()


def count_unqueued_events(*, now: datetime) -> int:
    """Return how many valid events were removed from the queue without a leaf; at most 1,000.

    Looks at the events that became MAX_SEALING_DELAY old after the newest checkpoint that is older
    than a minute, and at those of at most a day. So the time of a run does not depend on the size
    of the log. `audit verify` finds older events. Raises: AuditUnavailable, KeyMissing.
    """
    compute_mac = create_mac_calculator()
    with translate_database_errors():
        checkpoints = AuditCheckpoint.objects.order_by("-tree_size").values_list(
            "sealed_at", flat=True
        )
        previous = checkpoints.filter(sealed_at__lt=now - _QUEUE_CHECK_OVERLAP).first()
        oldest = now - _LONGEST_QUEUE_CHECK
        start = max(previous or oldest, oldest)
        first_id = lowest_uuid7(start - MAX_SEALING_DELAY)
        end_id = lowest_uuid7(now - MAX_SEALING_DELAY)
        count = 0
        for event in read_unqueued_events(first_id, end_id, limit=1000):
            if not event.canonical:
                continue
            has_valid_mac = compute_mac(event.mac_key, event.canonical) == event.mac
            if has_valid_mac and _is_sealable(event.canonical, event):
                count += 1
        return count


def _is_sealable(canonical: bytes, event: RawEvent) -> bool:
    """canonical: that of the event."""
    if is_declaration(canonical) or not has_time_of_id(event.event_id, event.microseconds):
        return False
    return has_plain_columns(*event.columns) or is_valid_event(canonical)


def _check_macs(events: Iterable[RawEvent], *, now: datetime) -> _CheckedBatch:
    """Separate the events to seal from the others."""
    batch = _CheckedBatch()
    first_held_id = lowest_uuid7(now + HELD_AHEAD).bytes
    first_refused_id = lowest_uuid7(now + MAX_AHEAD).bytes
    compute_mac = create_mac_calculator()
    newest_key = keyring.get_keys("audit_mac")[0].id
    for event in events:
        event_id = event.event_id
        canonical = event.canonical
        if len(event_id) != UUID_BYTES:
            # Not a UUID, which only SQLite can store. `audit verify` reports it.
            continue
        batch.last_id = event_id
        computed = compute_mac(event.mac_key, canonical or b"")
        if canonical and computed == event.mac:
            if first_held_id <= event_id < first_refused_id:
                # Stays in the queue. A forged one is refused now.
                continue
            if event_id < first_refused_id and _is_sealable(canonical, event):
                batch.leaves.append((event_id, hash_leaf(canonical)))
                batch.retired_key_count += event.mac_key != newest_key
            else:
                batch.invalid_ids.append(event_id)
        elif computed is None:
            batch.unverifiable_ids.append(event_id)
        else:
            batch.forged_ids.append(event_id)
    return batch


def _mark_refused(batch: _CheckedBatch, *, now: datetime) -> list[AuthenticatedEvent]:
    """Mark refused events, so that later runs skip them, and write an alert for each rule."""
    alerts = []
    refused = {
        "event_forged": batch.forged_ids,
        "event_key_unknown": batch.unverifiable_ids,
        "event_invalid": batch.invalid_ids,
    }
    for rule, ids in refused.items():
        marked = 0
        for start in range(0, len(ids), _UPDATE_CHUNK_SIZE):
            chunk = [uuid.UUID(bytes=id_) for id_ in ids[start : start + _UPDATE_CHUNK_SIZE]]
            marked += AuditUnsealed.objects.filter(event_id__in=chunk, refused=False).update(
                refused=True
            )
        if marked:
            resource = f"AuditEvent/{uuid.UUID(bytes=ids[0])}"
            detail = {"rule": rule, "count": len(ids)}
            event = NewEvent(Action.ALERT_RAISED, Origin(), now, resource=resource, detail=detail)
            alerts.append(authenticate_event(event))
    if alerts:
        insert(build_rows(alerts), using=AUDIT_ALIAS)
    return alerts


def _rebuild_queue() -> None:
    """Make the queue hold exactly the events without a leaf."""
    with transaction.atomic(using=AUDIT_ALIAS), connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(
            "INSERT INTO phi_oidc_audit_auditunsealed (event_id) SELECT e.id FROM "
            "phi_oidc_audit_auditevent e LEFT JOIN phi_oidc_audit_auditleaf l ON l.event_id = e.id "
            "WHERE l.event_id IS NULL "
            "ON CONFLICT DO NOTHING"
        )
        _remove_sealed_from_queue()


def _remove_sealed_from_queue() -> int:
    """Remove events that have a leaf from the queue, and return how many there were."""
    with connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(
            "DELETE FROM phi_oidc_audit_auditunsealed WHERE event_id IN (SELECT event_id FROM "
            "phi_oidc_audit_auditleaf)"
        )
        count = int(cursor.rowcount)
    if count:
        logger.error(
            "%d sealed events were in the queue again, which no code of this app does.", count
        )
    return count
