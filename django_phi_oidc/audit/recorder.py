"""Record permits and refusals: committed at once on the audit connection, before the response. No
event, no permit.

`throttling` decides whether a refusal that costs its sender nothing gets an event of its own.
"""

import uuid
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Unpack

from .._internal.randomness import lowest_uuid7
from ..errors import AuditUnavailable, KeyMissing
from .events import MAX_ITEMS, SIGNED_LATE_KEY, Action, EventFields, NewEvent, Origin, parse_detail
from .models import AuditEvent
from .storage import (
    EVENT_ERRORS,
    UNLOADABLE_ROW_ERRORS,
    WRITE_SECONDS,
    audit_deadline,
    authenticate_event,
    has_valid_row_mac,
    insert_events,
)

ALERT_INTERVAL = timedelta(hours=1)


def record(action: str, **fields: Unpack[EventFields]) -> uuid.UUID:
    """Commit an event, regardless of the caller's transaction, and return its id.

    fields: those of NewEvent; `origin` and `now` are required.
    Requires: no open transaction on the audit alias (RuntimeError).
    Raises: AuditUnavailable, and then nothing may be permitted; ValueError for an unknown action or
    outcome.
    """
    return record_many([NewEvent(action, **fields)])[0]


def record_many(events: Sequence[NewEvent]) -> tuple[uuid.UUID, ...]:
    """Commit the events by one INSERT, all or none, and return their ids in the same order.

    Requires, Raises: as `record`.
    """
    if not events:
        return ()
    try:
        authenticated = [authenticate_event(event) for event in events]
        insert_events(authenticated)
    except (*EVENT_ERRORS, KeyMissing) as error:
        raise AuditUnavailable from error
    return tuple(item.event.id for item in authenticated)


def raise_audit_alert(
    rule: str,
    *,
    now: datetime,
    count: int = 0,
    reason: str = "",
    event_ids: Sequence[uuid.UUID] = (),
) -> None:
    """Record an alert about the audit log itself, at most one per rule and hour.

    Arguments, Raises: as `record_audit_alert`.
    """
    if not is_recorded(Action.ALERT_RAISED, "rule", rule, now=now):
        record_audit_alert(rule, now=now, count=count, reason=reason, event_ids=event_ids)


def record_audit_alert(
    rule: str,
    *,
    now: datetime,
    count: int = 0,
    reason: str = "",
    event_ids: Sequence[uuid.UUID] = (),
) -> None:
    """Record an alert about the audit log itself.

    event_ids: of the events that it is about; count is their number. The alert names the first
    MAX_ITEMS. Raises: AuditUnavailable.
    """
    detail: dict[str, Any] = {"rule": rule}
    if count or event_ids:
        detail["count"] = count or len(event_ids)
    if event_ids:
        detail["event_ids"] = [str(event_id) for event_id in event_ids[:MAX_ITEMS]]
    record(Action.ALERT_RAISED, origin=Origin(), now=now, reason=reason, detail=detail)


def is_recorded(action: Action, key: str, value: str, *, now: datetime) -> bool:
    """Return whether such an event with that value in its detail was recorded in the hour before
    now.

    Only events that got a valid MAC at once count, so an attacker cannot suppress an event by
    inserting a forged one.
    Raises: AuditUnavailable.
    """
    since = now - ALERT_INTERVAL
    until = now + timedelta(milliseconds=1)
    # The times, too: a forged row may have one that no model can load.
    events = AuditEvent.objects.filter(
        action=action,
        id__range=(lowest_uuid7(since), lowest_uuid7(until)),
        occurred_at__range=(since, until),
        detail__contains=f'"{value}"',
    )
    try:
        with audit_deadline(WRITE_SECONDS):
            return any(
                _has_authentic_value(event, key, value) for event in events.iterator(chunk_size=100)
            )
    except KeyMissing as error:
        raise AuditUnavailable from error


def _has_authentic_value(event: AuditEvent, key: str, value: str) -> bool:
    with suppress(*UNLOADABLE_ROW_ERRORS):
        if has_valid_row_mac(event):
            detail = parse_detail(event.detail)
            return detail.get(key) == value and SIGNED_LATE_KEY not in detail
    return False
