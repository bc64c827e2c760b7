"""One sink gets what it does not have yet: at least once, in order, nothing skipped. Its cursor lies in the table.

A batch is read, sent and only then written down, so whoever is killed in between sends it again.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from django.db import DEFAULT_DB_ALIAS, models, transaction

from .._internal import randomness
from .._internal.retry import compute_backoff
from ..audit.events import Action, Origin
from ..audit.formats.items import LogItem, SealedCheckpoint, SealedEvent
from ..audit.models import AuditWitness
from ..audit.outbox import enqueue
from ..errors import AuditUnavailable
from .cursor import DeliveryBatch, find_oldest_undelivered_time, get_next_batch
from .http_protocol import SendResult
from .models import SinkCursor

LEASE_DURATION = timedelta(seconds=90)
"""How long a cursor is one worker's; longer than reading a batch and any deadline of sending it."""
SEND_SECONDS = 20.0
BATCH_SIZE = 500
_STOPPING_FAULTS = frozenset({"log_behind_sink", "log_forked", "event_missing", "event_unreadable"})
"""What a person must look at before this sink gets anything more."""


class LogSink(Protocol):
    """A place outside that takes items."""

    def send(self, items: Sequence[LogItem], *, timeout_seconds: float) -> SendResult:
        """Return what became of items within deadline seconds, the whole exchange included; never raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryResult:
    """What a run came to."""

    accepted: int = 0
    """Items delivered."""
    fault: str = ""
    """A code, when it ended before all was delivered for another reason than the time."""
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
    """Send to sink what it has not got, until it has all, something is in the way, or seconds have passed.

    The cursor is leased by a committed compare-and-set for each batch, so two workers never send to one sink at once;
    a worker that lost its lease writes nothing.

    deadline: seconds, of sending one batch. Requires: deadline below LEASE.
    Raises: RuntimeError inside an open transaction, which the sending would hold open.
    """
    ends_at = time.monotonic() + seconds
    accepted = 0
    while (cursor := _acquire_lease(name, now=clock())) is not None:
        try:
            found = get_next_batch(cursor, limit=_reduced_batch_size(batch_size, cursor.attempts))
        except AuditUnavailable as error:
            found = DeliveryBatch(fault=error.code)
        answer = sink.send(found.items, timeout_seconds=send_timeout_seconds) if found.items else SendResult(accepted=0)
        fault = answer.fault or ("" if found.items else found.fault)
        if not _record_delivery(cursor, found, answer, fault=fault, now=clock()):
            break
        accepted += answer.accepted
        if fault or not found.items:
            return DeliveryResult(accepted=accepted, fault=fault, is_caught_up=not fault)
        if time.monotonic() >= ends_at:
            break
    return DeliveryResult(accepted=accepted)


def check_lag(name: str, *, lag_alert: timedelta, now: datetime) -> bool:
    """Say whether the sink lacks something that was sealed more than lag_alert ago; raise an alert, once for each lag.

    Whether it is tried or not: a sink in its back-off, or that nobody delivers to, is told of too.
    Raises: AuditUnavailable.
    """
    cursor = _get_cursor(name, now=now)
    since = find_oldest_undelivered_time(cursor)
    is_late = since is not None and now - since > lag_alert
    if is_late and not cursor.lagging:
        with transaction.atomic(durable=True):
            if SinkCursor.objects.filter(name=name, lagging=False).update(lagging=True):
                _enqueue_alert("delivery_lag", cursor, reason=cursor.last_fault, now=now)
    elif since is None and cursor.lagging:
        SinkCursor.objects.filter(name=name).update(lagging=False)
    return is_late


def make_due_now(names: Sequence[str], *, now: datetime) -> None:
    """Let these sinks be tried now, whatever their back-off says."""
    for name in names:
        _get_cursor(name, now=now)
    SinkCursor.objects.filter(name__in=names).update(due_at=now)


def get_cursors(names: Sequence[str], *, now: datetime) -> dict[str, SinkCursor]:
    """Return the cursors of these sinks, those without a fault first; one that is new stands at the beginning."""
    found = [_get_cursor(name, now=now) for name in names]
    return {cursor.name: cursor for cursor in sorted(found, key=lambda cursor: cursor.attempts)}


def _get_cursor(name: str, *, now: datetime) -> SinkCursor:
    return SinkCursor.objects.get_or_create(name=name, defaults={"due_at": now})[0]


def _reduced_batch_size(batch_size: int, attempts: int) -> int:
    """Half as many after each failure: an item that a collector does not take then stands alone, and holds up no other
    that comes before it.
    """
    return max(1, batch_size >> min(attempts - 1, 16))


def _acquire_lease(name: str, *, now: datetime) -> SinkCursor | None:
    """Return the cursor, with the lease that is in the table; None when it is not due, or with another worker."""
    _get_cursor(name, now=now)
    with transaction.atomic(durable=True):
        due = SinkCursor.objects.all().due(now).filter(name=name)
        if not due.update(lease_until=now + LEASE_DURATION, attempts=models.F("attempts") + 1):
            return None
        return SinkCursor.objects.get(name=name)


def _record_delivery(
    cursor: SinkCursor, batch: DeliveryBatch, result: SendResult, *, fault: str, now: datetime
) -> bool:
    """Commit what was delivered; False when the lease ran out and another worker has the cursor by now."""
    place = asdict(batch.position) if batch.position else {}
    changes: dict[str, Any] = {**place, "lease_until": None, "last_fault": fault}
    taken = batch.items[: result.accepted]
    for item in taken:
        changes |= _cursor_changes(item)
    if taken:
        changes["delivered_at"] = now
    if fault:
        fraction = int.from_bytes(randomness.token_bytes(4)) / 2**32
        # The trail that is away says nothing of the sink, which is due as soon as the trail is back.
        attempts = 1 if taken or fault == AuditUnavailable.code else cursor.attempts
        slowly = result.needs_operator or fault in _STOPPING_FAULTS
        wait = compute_backoff(
            attempts=attempts, needs_operator=slowly, retry_after=result.retry_after, jitter_fraction=fraction
        )
        changes |= {"due_at": now + wait, "attempts": attempts}
    else:
        changes |= {"due_at": now, "attempts": 0}
    if not batch.items and not fault:
        changes["lagging"] = False
    with transaction.atomic(durable=True):
        ours = SinkCursor.objects.filter(
            name=cursor.name,
            lease_until=cursor.lease_until,
            attempts=cursor.attempts,
            tree_size=cursor.tree_size,
            checkpoint_size=cursor.checkpoint_size,
        )
        if not ours.update(**changes):
            return False
        _store_witnesses(taken)
        if rule := _alert_rule(cursor, result, fault=fault):
            _enqueue_alert(rule, cursor, reason=fault, now=now)
    return True


def _cursor_changes(item: LogItem) -> dict[str, Any]:
    if isinstance(item, SealedEvent):
        return {"tree_size": item.leaf_index + 1, "leaf_hash": item.leaf_hash}
    return {"checkpoint_size": item.tree_size, "root_hash": item.root_hash, "epoch": item.epoch}


def _store_witnesses(delivered: Sequence[LogItem]) -> None:
    """Remember the largest checkpoint that is outside now, of each log: the sealer signs nothing below it."""
    # They come in the order of their sizes, so the last one of each origin stays.
    largest = {item.origin: item for item in delivered if isinstance(item, SealedCheckpoint)}
    for checkpoint in largest.values():
        _, is_new = AuditWitness.objects.get_or_create(origin=checkpoint.origin, defaults={"note": checkpoint.note})
        if is_new:
            continue
        known = AuditWitness.objects.select_for_update().get(origin=checkpoint.origin)
        if _parse_note_size(known.note) < checkpoint.tree_size:
            AuditWitness.objects.filter(origin=checkpoint.origin).update(note=checkpoint.note)


def _parse_note_size(note: str) -> int:
    """Return the size in a note's second line, less than any when there is none."""
    size = [*note.split("\n", 2), "", ""][1]
    return int(size) if size.isascii() and size.isdigit() else -1


def _alert_rule(cursor: SinkCursor, result: SendResult, *, fault: str) -> str:
    """Return the rule of the alert that this raises, or nothing: the same fault again is no news."""
    if not fault or cursor.last_fault == fault:
        return ""
    if fault in _STOPPING_FAULTS:
        return "delivery_stopped"
    return "delivery_refused" if result.needs_operator else ""


def _enqueue_alert(rule: str, cursor: SinkCursor, *, reason: str, now: datetime) -> None:
    enqueue(
        Action.ALERT_RAISED,
        origin=Origin(),
        now=now,
        resource=f"Sink/{cursor.name}",
        reason=reason,
        detail={"rule": rule, "attempts": cursor.attempts},
        using=DEFAULT_DB_ALIAS,
    )
