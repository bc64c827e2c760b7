"""An emergency access is over before its time, by the person or by an administrator; or its time has been told of.

That it ends at its time needs nobody: whoever asks compares the clock. `expire` only says so, in the row and the trail.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F

from ..audit.events import Act, Action, Origin
from ..audit.outbox import enqueue_many
from .models import EVERYTHING, CloseReason, EmergencyAccess

BATCH = 500


def close(
    ids: Collection[UUID], why: CloseReason, *, origin: Origin, now: datetime, user: Any = None
) -> tuple[UUID, ...]:
    """Close those of these emergencies that are open, with their events, and return which. user: only this one's."""
    closed = []
    with transaction.atomic():
        rows = EmergencyAccess.objects.lasting(now=now).filter(pk__in=ids)
        for row in rows if user is None else rows.filter(user=user):
            # By one statement each: of two who close it at once, one has the event.
            if EmergencyAccess.objects.filter(pk=row.pk, closed_at=None).update(closed_at=now, close_reason=why):
                closed.append(row)
        enqueue_many([_act(Action.EMERGENCY_CLOSED, row, why, origin=origin, now=now) for row in closed])
    return tuple(row.pk for row in closed)


def expire(*, now: datetime) -> int:
    """Note of those emergencies whose time is over that it is, with their events, and return how many they were."""
    expired = []
    with transaction.atomic():
        for row in EmergencyAccess.objects.overdue(now=now).order_by("pk")[:BATCH]:
            its = EmergencyAccess.objects.filter(pk=row.pk, closed_at=None)
            if its.update(closed_at=F("expires_at"), close_reason=CloseReason.EXPIRED):
                expired.append(row)
        acts = [_act(Action.EMERGENCY_EXPIRED, row, "", origin=Origin(actor=row.actor), now=now) for row in expired]
        enqueue_many(acts)
    return len(expired)


def _act(action: Action, row: EmergencyAccess, reason: str, *, origin: Origin, now: datetime) -> Act:
    return Act(
        action=action,
        origin=origin,
        now=now,
        purpose=row.purpose,
        resource="" if row.resource == EVERYTHING else row.resource,
        reason=str(reason),
        detail={"emergency": str(row.pk)},
    )
