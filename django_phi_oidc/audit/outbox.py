"""Changes: the finished event is committed with the change it tells of, then moves to the trail: not lost, not phantom.

A move is INSERT into the trail, then DELETE from the outbox. Whoever is killed in between, or meets another that moves
the same event, finds the event in the trail under its id with its MAC, and only deletes.
"""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections, transaction

from .._internal.sql import delete, insert
from ..errors import AuditUnavailable, KeyMissing
from .events import AuthenticatedEvent, EventOutcome, NewEvent, Origin, parse_event, serialize_event
from .models import AuditOutbox
from .storage import EVENT_ERRORS, authenticate_event, insert_events, logger, store_events, store_missing_events

COOL_DOWN_SECONDS = 5.0
"""How long this process leaves the trail alone after a commit, when the last one could not reach it."""
MOVE_TIMEOUT_SECONDS = 0.5
"""How long a commit's events wait for a trail that hangs: a person waits for that commit."""
_BATCH_SIZE = 500
_unavailable_until = 0.0
_deferred_events: ContextVar[list[AuthenticatedEvent] | None] = ContextVar("django_phi_oidc.audit.outbox", default=None)


def reset_cooldown() -> None:
    """Let the next commit try the trail, whatever became of the last one."""
    global _unavailable_until  # noqa: PLW0603 -- one for the process
    _unavailable_until = 0.0


def enqueue(
    action: str,
    *,
    origin: Origin,
    now: datetime,
    outcome: EventOutcome = "success",
    subject: str = "",
    provider: str = "",
    purpose: str = "",
    resource: str = "",
    reason: str = "",
    detail: Mapping[str, Any] | None = None,
    using: str = DEFAULT_DB_ALIAS,
) -> uuid.UUID:
    """Return the id of an event that is committed if, and only if, the open transaction on `using` is.

    The arguments are the fields of Act; using: the alias of the database on which the change is made.
    The audit database is not waited for: the event moves there after the commit, or, when that fails, by `drain`.
    Raises: RuntimeError outside a transaction; KeyMissing; ValueError for an action out of the vocabulary.
    """
    act = NewEvent(
        action=action,
        origin=origin,
        now=now,
        outcome=outcome,
        subject=subject,
        provider=provider,
        purpose=purpose,
        resource=resource,
        reason=reason,
        detail=detail,
    )
    return enqueue_many([act], using=using)[0]


def enqueue_many(events: Sequence[NewEvent], *, using: str = DEFAULT_DB_ALIAS) -> tuple[uuid.UUID, ...]:
    """Return the ids of the events of acts, in their order, which share their fate: one statement, and one move.

    Raises: what `enqueue` does.
    """
    if not connections[using].in_atomic_block:
        raise RuntimeError("The event of a change is written in the transaction of that change.")
    if not events:
        return ()
    finished = [authenticate_event(act) for act in events]
    insert([AuditOutbox(id=each.event.id, event=serialize_event(each)) for each in finished], using=using)

    def move_committed_events() -> None:
        held_back = _deferred_events.get()
        if held_back is None or using != DEFAULT_DB_ALIAS:
            _move_committed(finished, using=using)
        else:
            held_back.extend(finished)

    # A function with a name, and no partial: Django names what fails, and a partial has no name, so the error would be
    # one of Django's own, in the middle of the request.
    transaction.on_commit(move_committed_events, using=using, robust=True)
    return tuple(each.event.id for each in finished)


@contextmanager
def defer_delivery() -> Iterator[list[AuthenticatedEvent]]:
    """Let the events of what is committed in this block wait in the outbox, and give the list of them.

    The permit that follows takes them along (`record_with`). What nobody takes, `drain` moves.
    """
    changes: list[AuthenticatedEvent] = []
    token = _deferred_events.set(changes)
    try:
        yield changes
    finally:
        _deferred_events.reset(token)


@contextmanager
def batch_delivery() -> Iterator[None]:
    """Let the events of all that is committed in this block move to the trail together, at its end."""
    if _deferred_events.get() is not None:
        yield
        return
    changes: list[AuthenticatedEvent] = []

    def move_changes() -> None:
        _move_committed(changes, using=DEFAULT_DB_ALIAS)

    try:
        with defer_delivery() as changes:
            yield
    finally:
        if changes:
            # As after a commit: what fails is told to the log, and the outbox keeps them.
            transaction.on_commit(move_changes, robust=True)


def record_with_deferred(deferred_events: Sequence[AuthenticatedEvent], events: Sequence[NewEvent]) -> None:
    """Commit the events of acts as `recording.record_many` does, and move changes out of the outbox by the same INSERT.

    Raises: AuditUnavailable, and then nothing may be permitted; what becomes of the move never raises.
    """
    try:
        finished = [authenticate_event(act) for act in events]
        try:
            insert_events([*deferred_events, *finished])
            moved = deferred_events
        except EVENT_ERRORS:
            # Somebody drains the outbox, and was faster: the trail has one of changes. They are not lost.
            insert_events(finished)
            moved = ()
    except (*EVENT_ERRORS, KeyMissing) as error:
        raise AuditUnavailable from error

    def forget_moved() -> None:
        _delete_rows(moved, using=DEFAULT_DB_ALIAS)

    transaction.on_commit(forget_moved, robust=True)


def flush(*, limit: int = 500, using: str = DEFAULT_DB_ALIAS) -> int:
    """Move up to limit events from the outbox to the trail, oldest first, and return how many were moved.

    Safe to kill, to repeat and to run several times at once. What can't be moved stays, is told to the log as an error,
    and holds up nothing behind it.
    Raises: AuditUnavailable.
    """
    moved = 0
    last = uuid.UUID(int=0)
    while moved < limit:
        rows = list(
            AuditOutbox.objects.using(using).filter(id__gt=last).order_by("id")[: min(limit - moved, _BATCH_SIZE)]
        )
        if not rows:
            break
        last = rows[-1].id
        moved += _move([finished for row in rows if (finished := _parse_row(row))], using=using)
    reset_cooldown()
    return moved


def _move_committed(events: Sequence[AuthenticatedEvent], *, using: str) -> None:
    """Move events, unless the trail could not be written a moment ago: a request waits for that once, at most."""
    global _unavailable_until  # noqa: PLW0603 -- one for the process: another thread's wait would tell the same
    if time.monotonic() < _unavailable_until:
        return
    try:
        stored = store_events(events, timeout_seconds=MOVE_TIMEOUT_SECONDS)
    except AuditUnavailable:
        _unavailable_until = time.monotonic() + COOL_DOWN_SECONDS
        for each in events:
            logger.warning("The audit trail can't be written; event %s waits in the outbox.", each.event.id)
    else:
        _delete_rows(stored, using=using)


def _move(events: Sequence[AuthenticatedEvent], *, using: str) -> int:
    stored = store_missing_events(events)
    _delete_rows(stored, using=using)
    return len(stored)


def _parse_row(row: AuditOutbox) -> AuthenticatedEvent | None:
    try:
        finished = parse_event(row.event)
    except ValueError:
        finished = None
    if finished is None or finished.event.id != row.id:
        logger.error("Row %s of the outbox is not an event as it was written; it stays.", row.id)
        return None
    return finished


def _delete_rows(events: Sequence[AuthenticatedEvent], *, using: str) -> None:
    """An event that a crash brings back is found in the trail by `drain`, which deletes it again."""
    if events:
        delete(AuditOutbox, [each.event.id for each in events], using=using)
