"""Permits and refusals: committed at once, on the trail's own connection, before the answer. No event, no permit.

Whether a refusal that cost its sender nothing is worth an event, `throttling` says, and not this.

Alerts of the trail about itself: one of a kind in an hour, and nobody silences them by an event of his own.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from .._internal.randomness import lowest_uuid7
from ..errors import AuditUnavailable, KeyMissing
from .events import Action, EventOutcome, NewEvent, Origin
from .models import AuditEvent
from .storage import EVENT_ERRORS, authenticate_event, has_valid_row_mac, insert_events, translate_database_errors


def record(
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
) -> uuid.UUID:
    """Return the id of the event, which is committed, whatever becomes of the caller's transaction.

    The arguments are the fields of Act.
    Requires: no open transaction on the trail's alias (RuntimeError).
    Raises: AuditUnavailable, and then nothing may be permitted; ValueError for an action out of the vocabulary.
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
    return record_many([act])[0]


def record_many(events: Sequence[NewEvent]) -> tuple[uuid.UUID, ...]:
    """Return the ids of the events, in the order of acts; all are committed by one INSERT, or none.

    Requires and raises what `record` does.
    """
    if not events:
        return ()
    try:
        finished = [authenticate_event(act) for act in events]
        insert_events(finished)
    except (*EVENT_ERRORS, KeyMissing) as error:
        raise AuditUnavailable from error
    return tuple(each.event.id for each in finished)


REPEAT_INTERVAL = timedelta(hours=1)


def raise_audit_alert(rule: str, *, now: datetime, count: int = 0) -> None:
    """Raise the alert, unless it was raised within QUIET. Raises: AuditUnavailable."""
    if _was_raised_recently(rule, now=now):
        return
    detail = {"rule": rule, "count": count} if count else {"rule": rule}
    insert_events([authenticate_event(NewEvent(action=Action.ALERT_RAISED, origin=Origin(), now=now, detail=detail))])


def _was_raised_recently(rule: str, *, now: datetime) -> bool:
    with translate_database_errors():
        span = lowest_uuid7(now - REPEAT_INTERVAL), lowest_uuid7(now + timedelta(milliseconds=1))
        raised = AuditEvent.objects.filter(action=Action.ALERT_RAISED, id__range=span)
        return any(
            has_valid_row_mac(event) and json.loads(event.detail).get("rule") == rule
            for event in raised.filter(detail__contains=f'"{rule}"').iterator(chunk_size=100)
        )
