"""Deliver the sealed log to one sink: at least once, in order, no event passed over without a row.

A batch is read, sent, and only then recorded in the cursor, so a killed worker sends it again. An
event that cannot be read, or that only the sink refuses, is set aside.
"""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from django.db import DEFAULT_DB_ALIAS, models, transaction

from ..._internal import randomness
from ..._internal.lease import is_lease_active
from ..._internal.retry import compute_backoff
from ...audit.events import Action, Origin
from ...audit.formats.items import LogItem, SealedCheckpoint, SealedEvent
from ...audit.log.cursor import (
    DeliveryPosition,
    ItemBatch,
    UnreadableEvent,
    find_oldest_sealing_time,
    read_items,
)
from ...audit.models import AuditWitness
from ...audit.outbox import enqueue, enqueue_many
from ...audit.set_aside_events import set_aside_events
from ...errors import AuditUnavailable, Code
from .http_protocol import SendResult
from .models import SinkCursor
from .refused_items import LogSink, SearchResult, send_around_refused

LEASE_DURATION = timedelta(seconds=90)
"""Lease of a cursor: longer than reading a batch and any timeout of sending it."""
SEND_SECONDS = 20.0
BATCH_SIZE = 500
STOPPING_FAULTS = frozenset({"log_behind_sink", "log_forked", "event_missing", "event_unreadable"})
"""Faults that an operator must look at before this sink gets more items."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryResult:
    """The result of a run."""

    accepted: int = 0
    """Items delivered."""
    fault: str = ""
    """A code, when the run ended early for another reason than its time."""
    is_caught_up: bool = False


def deliver(
    name: str,
    sink: LogSink,
    *,
    clock: Callable[[], datetime],
    seconds: float,
    batch_size: int = BATCH_SIZE,
    send_timeout_seconds: float = SEND_SECONDS,
) -> DeliveryResult:
    """Send the items that sink lacks, until it has all, a fault stops it, or seconds have passed.

    Each batch takes a lease on the cursor by a committed compare-and-set, so two workers never send
    to one sink at the same time. A worker that lost its lease records nothing.

    Requires: send_timeout_seconds below LEASE_DURATION.
    Raises: RuntimeError inside an open transaction, which would stay open while sending.
    """
    ends_at = time.monotonic() + seconds
    accepted = 0
    while (cursor := _acquire_lease(name, now=clock())) is not None:
        try:
            # Halved after each failure: a smaller batch may be sent in time.
            # At least two, so that a refused item has a neighbour.
            limit = max(min(2, batch_size), batch_size >> min(cursor.attempts - 1, 16))
            batch = read_items(_get_position(cursor), limit=limit)
        except AuditUnavailable as error:
            batch = ItemBatch(fault=error.code)

        if batch.items:
            sent = _send_batch(sink, batch, timeout_seconds=send_timeout_seconds)
            fault = sent.result.fault
        else:
            sent = _SentBatch(result=SendResult(accepted=0))
            fault = batch.fault

        if not _record_delivery(cursor, batch, sent, fault=fault, now=clock()):
            break
        accepted += sent.result.accepted
        if fault or not batch.items:
            return DeliveryResult(accepted=accepted, fault=fault, is_caught_up=not fault)
        if time.monotonic() >= ends_at:
            break
    return DeliveryResult(accepted=accepted)


@dataclass(frozen=True, slots=True, kw_only=True)
class _SentBatch:
    """What became of the items of a batch."""

    result: SendResult
    """`accepted` is without the items of `errors`."""
    passed: Sequence[LogItem | UnreadableEvent] = ()
    """The items after which delivery continues, from the first on."""
    errors: Mapping[uuid.UUID, str] = field(default_factory=dict)
    """Of the passed events that the sink does not have."""


def _send_batch(sink: LogSink, batch: ItemBatch, *, timeout_seconds: float) -> _SentBatch:
    sendable: list[LogItem] = []
    for item in batch.items:
        if not isinstance(item, UnreadableEvent):
            sendable.append(item)
    search = SearchResult(result=SendResult(accepted=0))
    if sendable:
        search = send_around_refused(sink, sendable, timeout_seconds=timeout_seconds)
    errors = {}
    left = search.result.accepted
    passed: list[LogItem | UnreadableEvent] = []
    for item in batch.items:
        if isinstance(item, UnreadableEvent):
            errors[item.event_id] = item.error
        elif left:
            left -= 1
        else:
            break
        passed.append(item)
    result = search.result
    if search.refused_item:
        errors[search.refused_item.authenticated_event.event.id] = search.error
        result = replace(result, accepted=result.accepted - 1)
    return _SentBatch(result=result, passed=passed, errors=errors)


def check_lag(name: str, *, lag_alert: timedelta, now: datetime) -> bool:
    """Return True if the sink lacks an item that was sealed more than lag_alert ago; raise one
    alert per lag.

    Applies to a sink in its back-off too, and to one that no worker delivers to. Raises:
    AuditUnavailable.
    """
    cursor = _get_cursor(name, now=now)
    since = find_oldest_sealing_time(cursor.checkpoint_size)
    is_late = since is not None and now - since > lag_alert
    if is_late and not cursor.lagging:
        with transaction.atomic(durable=True):
            if SinkCursor.objects.filter(name=name, lagging=False).update(lagging=True):
                _enqueue_alert("delivery_lag", cursor, reason=cursor.last_fault, now=now)
    elif since is None and cursor.lagging:
        SinkCursor.objects.filter(name=name).update(lagging=False)
    return is_late


def make_due_now(names: Sequence[str], *, now: datetime) -> None:
    """Make these sinks due at once, regardless of their back-off."""
    for name in names:
        _get_cursor(name, now=now)
    SinkCursor.objects.filter(name__in=names).update(due_at=now)


def get_cursors(names: Sequence[str], *, now: datetime) -> dict[str, SinkCursor]:
    """Return the cursors of these sinks, those without a fault first; a new one starts at the
    beginning of the log.
    """
    cursors = [_get_cursor(name, now=now) for name in names]
    return {cursor.name: cursor for cursor in sorted(cursors, key=lambda cursor: cursor.attempts)}


def find_cursors(names: Sequence[str], *, now: datetime) -> dict[str, SinkCursor]:
    """Return the cursors of these sinks as they are; an unsaved one for a sink that no worker has
    delivered to.
    """
    stored = SinkCursor.objects.in_bulk(names)
    cursors = {}
    for name in names:
        cursors[name] = stored.get(name) or SinkCursor(name=name, due_at=now)
    return cursors


def is_leased(cursor: SinkCursor, *, now: datetime) -> bool:
    """Say whether a worker delivers to this sink at the moment."""
    return is_lease_active(cursor.lease_until, now=now, lease=LEASE_DURATION)


def _get_cursor(name: str, *, now: datetime) -> SinkCursor:
    return SinkCursor.objects.get_or_create(name=name, defaults={"due_at": now})[0]


def _acquire_lease(name: str, *, now: datetime) -> SinkCursor | None:
    """Return the cursor with its lease; None when it is not due, or another worker holds it."""
    _get_cursor(name, now=now)
    with transaction.atomic(durable=True):
        due = SinkCursor.objects.filter(due_at__lte=now)
        if not due.acquire_lease(
            name, now=now, lease=LEASE_DURATION, attempts=models.F("attempts") + 1
        ):
            return None
        return SinkCursor.objects.get(name=name)


def _record_delivery(
    cursor: SinkCursor, batch: ItemBatch, sent: _SentBatch, *, fault: str, now: datetime
) -> bool:
    """Commit what was delivered; return False when the lease ran out and another worker has changed
    the cursor.
    """
    result = sent.result
    position = batch.position or _get_position(cursor)
    for item in sent.passed:
        position = _advance_position(position, item)
    delivered_at = cursor.delivered_at
    if result.accepted:
        delivered_at = now

    # Without a change, keep the stored value: `check_lag` may set it while a worker delivers.
    lagging: bool | models.F = models.F("lagging")
    if not batch.items and not fault:
        lagging = False

    if fault:
        # An unavailable audit database is no fault of the sink, which is due as soon as the
        # database is back.
        if sent.passed or fault == Code.AUDIT_UNAVAILABLE:
            attempts = 1
        else:
            attempts = cursor.attempts

        wait = compute_backoff(
            attempts=attempts,
            needs_operator=result.needs_operator or fault in STOPPING_FAULTS,
            retry_after=result.retry_after,
            jitter_fraction=int.from_bytes(randomness.token_bytes(4)) / 2**32,
        )
        due_at = now + wait
        failing_since = cursor.failing_since or now
    else:
        due_at = now
        attempts = 0
        failing_since = None

    with transaction.atomic(durable=True):
        leased = SinkCursor.objects.filter(
            name=cursor.name,
            lease_until=cursor.lease_until,
            attempts=cursor.attempts,
            tree_size=cursor.tree_size,
            checkpoint_size=cursor.checkpoint_size,
        )
        is_recorded = leased.update(
            tree_size=position.tree_size,
            checkpoint_size=position.checkpoint_size,
            leaf_hash=position.leaf_hash,
            root_hash=position.root_hash,
            epoch=position.epoch,
            attempts=attempts,
            due_at=due_at,
            lease_until=None,
            last_fault=fault,
            failing_since=failing_since,
            delivered_at=delivered_at,
            lagging=lagging,
        )
        if not is_recorded:
            return False
        _store_witnesses(sent.passed)
        alerts = set_aside_events(f"sink:{cursor.name}", sent.errors, now=now)
        enqueue_many(alerts, using=DEFAULT_DB_ALIAS)
        # A repeated fault raises no second alert.
        is_stopped = fault in STOPPING_FAULTS
        if fault and cursor.last_fault != fault and (is_stopped or result.needs_operator):
            if is_stopped:
                rule = "delivery_stopped"
            else:
                rule = "delivery_refused"
            _enqueue_alert(rule, cursor, reason=fault, now=now)
    return True


def _get_position(cursor: SinkCursor) -> DeliveryPosition:
    return DeliveryPosition(
        tree_size=cursor.tree_size,
        checkpoint_size=cursor.checkpoint_size,
        leaf_hash=bytes(cursor.leaf_hash),
        root_hash=bytes(cursor.root_hash),
        epoch=cursor.epoch,
    )


def _advance_position(
    position: DeliveryPosition, item: LogItem | UnreadableEvent
) -> DeliveryPosition:
    if isinstance(item, SealedEvent | UnreadableEvent):
        return replace(position, tree_size=item.leaf_index + 1, leaf_hash=item.leaf_hash)
    return replace(
        position,
        checkpoint_size=item.tree_size,
        root_hash=item.root_hash,
        epoch=item.epoch,
    )


def _store_witnesses(delivered: Sequence[LogItem | UnreadableEvent]) -> None:
    """Store the largest delivered checkpoint of each log: the sealer signs nothing below it."""
    # Items are in order of size, so the last checkpoint of each origin is the largest.
    largest = {}
    for item in delivered:
        if isinstance(item, SealedCheckpoint):
            largest[item.origin] = item
    for checkpoint in largest.values():
        _, is_new = AuditWitness.objects.get_or_create(
            origin=checkpoint.origin, defaults={"note": checkpoint.note}
        )
        if is_new:
            continue
        known = AuditWitness.objects.select_for_update().get(origin=checkpoint.origin)
        if _parse_note_size(known.note) < checkpoint.tree_size:
            AuditWitness.objects.filter(origin=checkpoint.origin).update(note=checkpoint.note)


def _parse_note_size(note: str) -> int:
    """Return the size in the second line of a note; -1 when there is none."""
    size = [*note.split("\n", 2), "", ""][1]
    if size.isascii() and size.isdigit():
        return int(size)
    return -1


def _enqueue_alert(rule: str, cursor: SinkCursor, *, reason: str, now: datetime) -> None:
    resource = f"Sink/{cursor.name}"
    detail = {"rule": rule, "attempts": cursor.attempts}
    enqueue(
        Action.ALERT_RAISED,
        origin=Origin(),
        now=now,
        detail=detail,
        using=DEFAULT_DB_ALIAS,
        resource=resource,
        reason=reason,
    )
