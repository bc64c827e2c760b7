"""Record changes: the authenticated event is committed with the change, then moved to the audit
log.

While the MAC keys are missing, events that end or withdraw something wait with a proof of the
process that wrote them. `flush` verifies it, and adds the MAC.

A move is an INSERT into the audit log, then a DELETE from the outbox. If a process is killed in
between, or two processes move the same event, the next one finds it in the audit log with its id
and MAC, and only deletes the row.
"""

import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any, Unpack

from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.models import Exists, OuterRef, QuerySet

from .._internal import clock
from .._internal.inserts import insert
from .._internal.randomness import lowest_uuid7
from .._internal.sql import delete
from ..crypto import keyring
from ..errors import AuditUnavailable
from ..extensions import EventReader
from .events import (
    Action,
    AuthenticatedEvent,
    Event,
    EventFields,
    NewEvent,
    Origin,
    could_be_recorded,
    parse_event,
    serialize_event,
)
from .models import AuditOutbox, SetAsideEvent
from .recorder import ALERT_INTERVAL, raise_audit_alert, record_audit_alert
from .set_aside_events import set_aside_events
from .storage import (
    audit_deadline,
    authenticate_changes,
    authenticate_late,
    get_stored_macs,
    has_valid_proof,
    logger,
    store_events,
    store_missing_events,
)

COOL_DOWN_SECONDS = 5.0
"""After a commit could not reach the audit database, this process does not try again for so
long.
"""
MOVE_TIMEOUT_SECONDS = 0.5
"""Limit for moving the events of a commit while the audit database hangs: a user waits for that
commit.
"""
RETRY_INTERVAL = timedelta(hours=1)
"""After a row was set aside, or tried again."""
MAX_REFUSED = 5_000
"""Rows that one flush sets aside."""
_BATCH_SIZE = 500
_READER = "outbox"
_unavailable_until = 0.0
_deferred_events: ContextVar[list[AuthenticatedEvent] | None] = ContextVar(
    "django_phi_oidc.audit.outbox", default=None
)


def reset_cooldown() -> None:
    """Allow the next commit to try the audit database again."""
    global _unavailable_until  # noqa: PLW0603 -- one per process
    _unavailable_until = 0.0


def _start_cooldown() -> None:
    global _unavailable_until  # noqa: PLW0603 -- one per process: other threads would wait for the same database
    _unavailable_until = time.monotonic() + COOL_DOWN_SECONDS


def enqueue(
    action: str, *, using: str = DEFAULT_DB_ALIAS, **fields: Unpack[EventFields]
) -> uuid.UUID:
    """Write an event in the open transaction on `using`, and return its id. It is committed with
    that transaction.

    fields: those of NewEvent; `origin` and `now` are required. using: the alias of the changed
    database.
    Does not wait for the audit database: the event moves there after the commit or, if that fails,
    by `flush`.
    Raises: RuntimeError outside a transaction; KeyMissing, except for withdrawals; ValueError for
    an unknown action or outcome; DatabaseError.
    """
    return enqueue_many([NewEvent(action, **fields)], using=using)[0]


def enqueue_many(
    events: Sequence[NewEvent], *, using: str = DEFAULT_DB_ALIAS
) -> tuple[uuid.UUID, ...]:
    """Write events as `enqueue` does, by one statement and one move, and return their ids in the
    same order.

    Raises: as `enqueue`.
    """
    authenticated = _insert_rows(events, using=using)
    if not authenticated:
        return ()
    movable = []
    for item in authenticated:
        if item.event.mac_key:
            movable.append(item)

    def move_committed_events() -> None:
        deferred = _deferred_events.get()
        if deferred is None or using != DEFAULT_DB_ALIAS:
            _move_committed(movable, using=using)
        else:
            deferred.extend(movable)

    # A named function: when a robust hook fails, Django logs its __qualname__, which a partial does
    # not have.
    transaction.on_commit(move_committed_events, using=using, robust=True)
    return tuple(item.event.id for item in authenticated)


def _insert_rows(events: Sequence[NewEvent], *, using: str) -> Sequence[AuthenticatedEvent]:
    if not connections[using].in_atomic_block:
        raise RuntimeError(
            "The event of a change must be written in the transaction of that change."
        )

    if events:
        authenticated = authenticate_changes(events)
    else:
        authenticated = []

    if authenticated:
        insert(
            [AuditOutbox(id=item.event.id, event=serialize_event(item)) for item in authenticated],
            using=using,
        )
    return authenticated


@contextmanager
def defer_delivery() -> Iterator[list[AuthenticatedEvent]]:
    """Keep the events that are committed in this block in the outbox, and yield the list of them.

    The caller or `flush` moves them.
    """
    events: list[AuthenticatedEvent] = []
    token = _deferred_events.set(events)
    try:
        yield events
    finally:
        _deferred_events.reset(token)


@contextmanager
def batch_delivery() -> Iterator[list[AuthenticatedEvent]]:
    """Move all events that are committed in this block to the audit log together, at its end; yield
    the list of them.

    In another such block, or in one of `defer_delivery`, the outer block does that.
    """
    if (outer := _deferred_events.get()) is not None:
        yield outer
        return
    events: list[AuthenticatedEvent] = []
    try:
        with defer_delivery() as events:
            yield events
    finally:
        if events:
            # As after a commit: a failure is logged, and the outbox keeps the events.
            transaction.on_commit(
                lambda: _move_committed(events, using=DEFAULT_DB_ALIAS), robust=True
            )


def enqueue_permit(events: Sequence[NewEvent]) -> Sequence[AuthenticatedEvent]:
    """Write events as `enqueue_many` does, and return them. After the commit, `deliver_permit`
    moves them.

    If the process is killed in between, `flush` moves them. Raises: as `enqueue`.
    """
    return _insert_rows(events, using=DEFAULT_DB_ALIAS)


def deliver_permit(events: Sequence[AuthenticatedEvent]) -> None:
    """Move committed events from the outbox to the audit log by one INSERT, before what they
    permit.

    Raises: AuditUnavailable unless the audit log has all of them. Then nothing may be permitted,
    and `flush` moves the rest: the caller records the end of what it has begun.
    """
    try:
        stored = store_events(events)
    except AuditUnavailable:
        # The caller now ends what was not permitted. Its event must not wait for the same database
        # again.
        _start_cooldown()
        raise
    if len(stored) < len(events):
        raise AuditUnavailable
    transaction.on_commit(lambda: _delete_rows(stored, using=DEFAULT_DB_ALIAS), robust=True)


def flush(*, limit: int = 500, using: str = DEFAULT_DB_ALIAS) -> int:
    """Move up to `limit` events from the outbox to the audit log, oldest first, and return how many
    were moved.

    Safe to kill, to repeat and to run concurrently. A row that no process of this portal wrote, or
    whose id another event has, is set aside with the alert `outbox_refused`, and tried again after
    RETRY_INTERVAL: a process with other settings may be able to move it. An event that the database
    refuses stays, and so does one without a MAC while the MAC keys are missing.
    Raises: AuditUnavailable.
    """
    now = clock.now()
    moved = 0
    errors: dict[uuid.UUID, str] = {}
    last_id = uuid.UUID(int=0)
    while moved < limit and len(errors) < MAX_REFUSED:
        waiting = _list_due_rows(using=using, now=now).filter(id__gt=last_id)
        rows = list(waiting[: min(limit - moved, _BATCH_SIZE)])
        if not rows:
            break
        last_id = rows[-1].id
        events, refused = _parse_rows(rows)
        errors.update(refused)
        ready = _authenticate_waiting(events, using=using)
        stored = store_missing_events(ready)
        _delete_rows(stored, using=using)
        moved += len(stored)
        stored_ids = {item.event.id for item in stored}
        errors.update(_find_taken_ids(ready, stored_ids))
        set_aside_ids = [row.id for row in rows if row.is_set_aside]
        _forget_set_aside(set_aside_ids, stored_ids, using=using)
    reset_cooldown()
    if errors and keyring.find_keys("audit_mac"):
        with transaction.atomic(using=using):
            alerts = set_aside_events(
                _READER, errors, now=now, alert_rule="outbox_refused", using=using
            )
            enqueue_many(alerts, using=using)
    return moved


class OutboxReader:
    """Moves one row that was set aside, when an operator retries it."""

    kind = _READER

    def retry(self, reader: str, event_id: uuid.UUID) -> None:
        """Raises: ValueError if the row cannot be moved; AuditUnavailable."""
        row = AuditOutbox.objects.filter(id=event_id).first()
        if row is None:
            return
        ready = _authenticate_waiting([_parse_row(row)], using=DEFAULT_DB_ALIAS)
        stored = store_missing_events(ready)
        if not stored:
            raise ValueError("The audit log does not have the event.")
        _delete_rows(stored, using=DEFAULT_DB_ALIAS)

    def drop(self, event_id: uuid.UUID) -> str:
        """Delete the row, and return its text."""
        row = AuditOutbox.objects.filter(id=event_id).first()
        if row is None:
            return ""
        delete(AuditOutbox, [row.id], using=DEFAULT_DB_ALIAS)
        return row.event


OUTBOX_READER: EventReader = OutboxReader()


def _list_due_rows(*, using: str, now: datetime) -> QuerySet[AuditOutbox, Any]:
    """Return the rows by id, without those that were tried in the last RETRY_INTERVAL."""
    set_aside = SetAsideEvent.objects.filter(reader=_READER, event_id=OuterRef("id"))
    tried = set_aside.filter(tried_at__gt=now - RETRY_INTERVAL)
    return (
        AuditOutbox.objects.using(using)
        .filter(~Exists(tried))
        .annotate(is_set_aside=Exists(set_aside))
        .order_by("id")
    )


def _find_taken_ids(
    events: Sequence[AuthenticatedEvent], stored_ids: Collection[uuid.UUID]
) -> dict[uuid.UUID, str]:
    """Return the events whose ids other events of the audit log have, with the error.

    Of the others that are not stored, the database may be the cause.
    """
    missing_ids = [item.event.id for item in events if item.event.id not in stored_ids]
    if not missing_ids:
        return {}
    return dict.fromkeys(get_stored_macs(missing_ids), "id_taken")


def _forget_set_aside(
    event_ids: Sequence[uuid.UUID], stored_ids: Collection[uuid.UUID], *, using: str
) -> None:
    """Delete the entries of events that were set aside, and are in the audit log now."""
    ids = [event_id for event_id in event_ids if event_id in stored_ids]
    if ids:
        SetAsideEvent.objects.using(using).filter(reader=_READER, event_id__in=ids).delete()


def list_waiting_events(action: Action) -> list[Event]:
    """Return the events of that action that are not in the audit log yet. One that is being moved
    may be in both.
    """
    rows = AuditOutbox.objects.filter(event__contains=f'"{action}"').order_by("id")
    waiting_events = []
    events, _ = _parse_rows(list(rows))
    for item in events:
        if item.event.action == action:
            waiting_events.append(item.event)
    return waiting_events


def raise_or_enqueue_alert(rule: str, *, now: datetime, count: int, reason: str) -> None:
    """Raise an alert as `raise_audit_alert` does; without the audit database or its keys, leave it
    in the outbox.

    There is at most one of that rule and hour in the outbox. An attacker who can write to the
    outbox can suppress it, but not the log line. Requires: no open transaction.
    """
    logger.critical("Alert %s: %s, count %d.", rule, reason, count)
    with suppress(AuditUnavailable):
        raise_audit_alert(rule, now=now, count=count, reason=reason)
        return
    id_range = lowest_uuid7(now - ALERT_INTERVAL), lowest_uuid7(now + timedelta(milliseconds=1))
    with transaction.atomic(durable=True):
        if not AuditOutbox.objects.filter(
            id__range=id_range, event__contains=f'"rule":"{rule}"'
        ).exists():
            enqueue(
                Action.ALERT_RAISED,
                origin=Origin(),
                now=now,
                reason=reason,
                detail={"rule": rule, "count": count},
            )


def _authenticate_waiting(
    events: Sequence[AuthenticatedEvent], *, using: str
) -> list[AuthenticatedEvent]:
    """Return the events that have a MAC now; those that wait for one get it, if the MAC keys are
    back.

    The MAC is committed to the outbox first: a repeated move has to find the same one in the audit
    log.
    """
    ready = []
    unsigned = []
    for item in events:
        if item.event.mac_key:
            ready.append(item)
        else:
            unsigned.append(item)

    if unsigned:
        keys = keyring.find_keys("audit_mac")
    else:
        keys = ()

    if unsigned and not keys:
        logger.error("%d events wait in the outbox for a MAC.", len(unsigned))
        return ready
    if unsigned:
        # First, and for each batch: if the process is killed now, the next one records it again.
        record_audit_alert(
            "events_signed_late",
            now=clock.now(),
            event_ids=[item.event.id for item in unsigned],
        )
    for item in unsigned:
        signed = authenticate_late(item.event, keys=keys)
        row = AuditOutbox.objects.using(using).filter(id=item.event.id, event=serialize_event(item))
        # A concurrent flush that has added the MAC moves the event as well.
        if row.update(event=serialize_event(signed)):
            ready.append(signed)
    return ready


def _move_committed(events: Sequence[AuthenticatedEvent], *, using: str) -> None:
    """Move events unless the audit database was unavailable a moment ago: a request waits for that
    at most once.
    """
    if not events or time.monotonic() < _unavailable_until:
        return
    try:
        with audit_deadline(MOVE_TIMEOUT_SECONDS):
            # Without a statement timeout, which takes a transaction: an event that is stored later
            # is not lost either.
            stored = store_events(events)
    except AuditUnavailable:
        _start_cooldown()
        for item in events:
            logger.warning(
                "The audit log can't be written; event %s waits in the outbox.", item.event.id
            )
    else:
        _delete_rows(stored, using=using)


def _parse_rows(
    rows: Sequence[AuditOutbox],
) -> tuple[list[AuthenticatedEvent], dict[uuid.UUID, str]]:
    """Return the events of the rows, and the errors of those that are not as they were written."""
    events = []
    errors = {}
    for row in rows:
        try:
            events.append(_parse_row(row))
        except ValueError as error:
            errors[row.id] = type(error).__name__
    return events, errors


def _parse_row(row: AuditOutbox) -> AuthenticatedEvent:
    """Raises: ValueError unless a process of this portal wrote the row as it is."""
    item = parse_event(row.event, allow_unsigned=True)
    is_written_here = bool(item.event.mac_key) or has_valid_proof(item)
    if item.event.id != row.id or not is_written_here or not could_be_recorded(item.event):
        raise ValueError("The row is not an event as it was written.")
    return item


def _delete_rows(events: Sequence[AuthenticatedEvent], *, using: str) -> None:
    """Delete moved events. If a crash undoes the deletion, `flush` finds them in the audit log and
    deletes again.
    """
    if events:
        delete(AuditOutbox, [item.event.id for item in events], using=using)
