"""What another person says of an emergency access, once, when it is over."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.views.decorators.debug import sensitive_variables

from ..audit.browsing import Filters, each
from ..audit.events import Action
from ..audit.models import AuditEvent
from ..audit.outbox import enqueue
from ..audit.recording import record
from ..audit.request import Actor
from ..errors import EmergencyRefused
from .emergency import REVIEW
from .models import EVERYTHING, EmergencyAccess, Verdict
from .policy import PERMISSION_MISSING

_LAST_REQUESTS = timedelta(minutes=1)
OWN, STILL_OPEN, REVIEWED = "own_emergency", "still_open", "already_reviewed"


@sensitive_variables("note")
def review(pk: UUID, *, actor: Actor, verdict: Verdict, note: str, now: datetime) -> EmergencyAccess:
    """Sign what actor says of the emergency, with its event, and return the row.

    Who opened it is refused, whatever their permissions, and so is anybody while it is open, and whoever comes second.
    Raises: EmergencyRefused, after `emergency.refused` is committed; AuditUnavailable; EmergencyAccess.DoesNotExist.
    """
    with transaction.atomic():
        row = EmergencyAccess.objects.select_for_update().get(pk=pk)
        refused = _refuse(row, actor.user, now=now)
        if not refused:
            row.reviewed_by, row.reviewed_at, row.verdict = str(actor.user.pk), now, verdict
            row.note = note.strip() or None  # type: ignore[assignment]  # plain text is assigned, as fields.py says
            row.save(force_update=True)
            enqueue(
                Action.EMERGENCY_REVIEWED,
                origin=actor.origin,
                now=now,
                purpose=row.purpose,
                resource="" if row.resource == EVERYTHING else row.resource,
                detail={"emergency": str(pk), "verdict": str(verdict)},
            )
    if refused:
        detail = {"emergency": str(pk)}
        record(Action.EMERGENCY_REFUSED, origin=actor.origin, now=now, outcome="failure", reason=refused, detail=detail)
        raise EmergencyRefused(refused)
    return row


def acts_under(row: EmergencyAccess) -> Iterator[AuditEvent]:
    """Yield the events that bear the emergency, oldest first; what still waits in a spool is not among them.

    Raises: AuditUnavailable; RowUnreadable where an event of that person and time was altered to what is none.
    """
    # A request that came before the end is decided a moment later.
    until = (row.closed_at or row.expires_at) + _LAST_REQUESTS
    for event in each(Filters(actor=row.actor, since=row.opened_at, until=until)):
        if str(row.pk) in event.detail:
            yield event


def _refuse(row: EmergencyAccess, user: Any, *, now: datetime) -> str | None:
    if not (user.is_active and user.has_perm(REVIEW)):
        return PERMISSION_MISSING
    if str(user.pk) == row.actor:
        return OWN
    if not row.is_over(now=now):
        return STILL_OPEN
    return REVIEWED if row.reviewed_at is not None else None
