"""One sink gets what it does not have yet: at least once, in order, nothing skipped. Its cursor lies in the table.

A batch is read, sent and only then written down, so whoever is killed in between sends it again.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from django.db import DEFAULT_DB_ALIAS, models, transaction

from .. import entropy
from ..audit.events import Action, Origin
from ..audit.models import AuditWitness
from ..audit.outbox import enqueue
from ..errors import AuditUnavailable
from ..sessions.timeouts import back_off
from .collector import Answer
from .gathering import Batch, gather, waiting_since
from .items import Item, SealedCheckpoint, SealedEvent
from .models import SinkCursor

LEASE = timedelta(seconds=90)
"""How long a cursor is one worker's; longer than reading a batch and any deadline of sending it."""
SEND_SECONDS = 20.0
BATCH = 500
_STOPPED = frozenset({"log_behind_sink", "log_forked", "event_missing", "event_unreadable"})
"""What a person must look at before this sink gets anything more."""


class Sink(Protocol):
    """A place outside that takes items."""

    def send(self, items: Sequence[Item], *, deadline: float) -> Answer:
        """Return what became of items within deadline seconds, the whole exchange included; never raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run came to."""

    accepted: int = 0
    """Items delivered."""
    fault: str = ""
    """A code, when it ended before all was delivered for another reason than the time."""
    is_caught_up: bool = False


def deliver(
    name: str,
    sink: Sink,
    *,
    clock: Callable[[], datetime],
    seconds: float,
    batch: int = BATCH,
    deadline: float = SEND_SECONDS,
) -> Result:
    """Send to sink what it has not got, until it has all, something is in the way, or seconds have passed.

    The cursor is leased by a committed compare-and-set for each batch, so two workers never send to one sink at once;
    a worker that lost its lease writes nothing.

    deadline: seconds, of sending one batch. Requires: deadline below LEASE.
    Raises: RuntimeError inside an open transaction, which the sending would hold open.
    """
    ends_at = time.monotonic() + seconds
    accepted = 0
    while (cursor := _lease(name, now=clock())) is not None:
        try:
            found = gather(cursor, limit=_size(batch, cursor.attempts))
        except AuditUnavailable as error:
            found = Batch(fault=error.code)
        answer = sink.send(found.items, deadline=deadline) if found.items else Answer(accepted=0)
        fault = answer.fault or ("" if found.items else found.fault)
        if not _write(cursor, found, answer, fault=fault, now=clock()):
            break
        accepted += answer.accepted
        if fault or not found.items:
            return Result(accepted=accepted, fault=fault, is_caught_up=not fault)
        if time.monotonic() >= ends_at:
            break
    return Result(accepted=accepted)


def watch_lag(name: str, *, lag_alert: timedelta, now: datetime) -> bool:
    """Say whether the sink lacks something that was sealed more than lag_alert ago; raise an alert, once for each lag.

    Whether it is tried or not: a sink in its back-off, or that nobody delivers to, is told of too.
    Raises: AuditUnavailable.
    """
    cursor = _cursor(name, now=now)
    since = waiting_since(cursor)
    is_late = since is not None and now - since > lag_alert
    if is_late and not cursor.lagging:
        with transaction.atomic(durable=True):
            if SinkCursor.objects.filter(name=name, lagging=False).update(lagging=True):
                _alert("delivery_lag", cursor, reason=cursor.last_fault, now=now)
    elif since is None and cursor.lagging:
        SinkCursor.objects.filter(name=name).update(lagging=False)
    return is_late


def make_due(names: Sequence[str], *, now: datetime) -> None:
    """Let these sinks be tried now, whatever their back-off says."""
    for name in names:
        _cursor(name, now=now)
    SinkCursor.objects.filter(name__in=names).update(due_at=now)


def cursors(names: Sequence[str], *, now: datetime) -> dict[str, SinkCursor]:
    """Return the cursors of these sinks, those without a fault first; one that is new stands at the beginning."""
    found = [_cursor(name, now=now) for name in names]
    return {cursor.name: cursor for cursor in sorted(found, key=lambda cursor: cursor.attempts)}


def _cursor(name: str, *, now: datetime) -> SinkCursor:
    return SinkCursor.objects.get_or_create(name=name, defaults={"due_at": now})[0]


def _size(batch: int, attempts: int) -> int:
    """Half as many after each failure: an item that a collector does not take then stands alone, and holds up no other
    that comes before it.
    """
    return max(1, batch >> min(attempts - 1, 16))


def _lease(name: str, *, now: datetime) -> SinkCursor | None:
    """Return the cursor, with the lease that is in the table; None when it is not due, or with another worker."""
    _cursor(name, now=now)
    with transaction.atomic(durable=True):
        due = SinkCursor.objects.all().due(now).filter(name=name)
        if not due.update(lease_until=now + LEASE, attempts=models.F("attempts") + 1):
            return None
        return SinkCursor.objects.get(name=name)


def _write(cursor: SinkCursor, found: Batch, answer: Answer, *, fault: str, now: datetime) -> bool:
    """Commit what was delivered; False when the lease ran out and another worker has the cursor by now."""
    place = asdict(found.place) if found.place else {}
    changes: dict[str, Any] = {**place, "lease_until": None, "last_fault": fault}
    taken = found.items[: answer.accepted]
    for item in taken:
        changes |= _advance(item)
    if taken:
        changes["delivered_at"] = now
    if fault:
        fraction = int.from_bytes(entropy.token_bytes(4)) / 2**32
        # The trail that is away says nothing of the sink, which is due as soon as the trail is back.
        attempts = 1 if taken or fault == AuditUnavailable.code else cursor.attempts
        slowly = answer.slowly or fault in _STOPPED
        wait = back_off(attempts=attempts, slowly=slowly, asked=answer.asked, fraction=fraction)
        changes |= {"due_at": now + wait, "attempts": attempts}
    else:
        changes |= {"due_at": now, "attempts": 0}
    if not found.items and not fault:
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
        _witness(taken)
        if rule := _rule(cursor, answer, fault=fault):
            _alert(rule, cursor, reason=fault, now=now)
    return True


def _advance(item: Item) -> dict[str, Any]:
    if isinstance(item, SealedEvent):
        return {"tree_size": item.leaf_index + 1, "leaf_hash": item.leaf_hash}
    return {"checkpoint_size": item.tree_size, "root_hash": item.root_hash, "epoch": item.epoch}


def _witness(taken: Sequence[Item]) -> None:
    """Remember the largest checkpoint that is outside now, of each log: the sealer signs nothing below it."""
    # They come in the order of their sizes, so the last one of each origin stays.
    largest = {item.origin: item for item in taken if isinstance(item, SealedCheckpoint)}
    for checkpoint in largest.values():
        _, is_new = AuditWitness.objects.get_or_create(origin=checkpoint.origin, defaults={"note": checkpoint.note})
        if is_new:
            continue
        known = AuditWitness.objects.select_for_update().get(origin=checkpoint.origin)
        if _noted_size(known.note) < checkpoint.tree_size:
            AuditWitness.objects.filter(origin=checkpoint.origin).update(note=checkpoint.note)


def _noted_size(note: str) -> int:
    """Return the size in a note's second line, less than any when there is none."""
    size = [*note.split("\n", 2), "", ""][1]
    return int(size) if size.isascii() and size.isdigit() else -1


def _rule(cursor: SinkCursor, answer: Answer, *, fault: str) -> str:
    """Return the rule of the alert that this raises, or nothing: the same fault again is no news."""
    if not fault or cursor.last_fault == fault:
        return ""
    if fault in _STOPPED:
        return "delivery_stopped"
    return "delivery_refused" if answer.slowly else ""


def _alert(rule: str, cursor: SinkCursor, *, reason: str, now: datetime) -> None:
    enqueue(
        Action.ALERT_RAISED,
        origin=Origin(),
        now=now,
        resource=f"Sink/{cursor.name}",
        reason=reason,
        detail={"rule": rule, "attempts": cursor.attempts},
        using=DEFAULT_DB_ALIAS,
    )
