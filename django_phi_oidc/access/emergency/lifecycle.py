"""Somebody takes permissions in an emergency: for one resource or for all, with a reason, and for a time.

The events of it and the mail that is due are committed with the row itself, on `default`: no emergency is open that
the trail will not have, and the trail being away keeps nobody from it. Spec: 45 CFR 164.312(a)(2)(ii).

An emergency access is over before its time, by the person or by an administrator; or its time has been told of.

That it ends at its time needs nobody: whoever asks compares the clock. `expire` only says so, in the row and the trail.

What another person says of an emergency access, once, when it is over.
"""

from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.views.decorators.debug import sensitive_variables

from ... import conf
from ..._internal import randomness
from ...audit.events import Action, NewEvent, Origin
from ...audit.models import AuditEvent
from ...audit.outbox import enqueue, enqueue_many
from ...audit.recorder import record
from ...audit.request_context import Actor
from ...audit.search import EventFilters, iterate_events
from ...errors import EmergencyRefused
from ..policy import (
    EMERGENCY_PURPOSES,
    PERMISSION_MISSING,
    PURPOSE_NOT_DECLARED,
    RESOURCE_INVALID,
    SESSION_MISSING,
    is_resource_reference,
)
from .models import ALL_RESOURCES, CloseReason, EmergencyAccess, ReviewVerdict
from .queries import REVIEW_PERMISSION, can_open

PERMISSION_NOT_OFFERED = "permission_not_offered"
REASON_MISSING = "reason_missing"
DURATION_INVALID = "duration_invalid"


@sensitive_variables("reason")
def open_emergency(
    actor: Actor,
    *,
    resource: str,
    permissions: Collection[str],
    purpose: str,
    reason: str,
    duration: timedelta,
    now: datetime,
) -> EmergencyAccess:
    """Open an emergency access of actor, and return it. resource: `Type/id`, or EVERYTHING. purpose: ETREAT or BTG.

    It is open when the caller's transaction is committed. The privacy officer is told by the next run of beat, and the
    SIEM by the alert.
    Raises: EmergencyRefused, after `emergency.refused` is committed; AuditUnavailable where it can't be.
    """
    permissions = sorted(set(permissions))
    refused = _find_opening_refusal(
        actor, resource=resource, permissions=permissions, purpose=purpose, reason=reason, duration=duration
    )
    if refused:
        record_emergency_refusal(actor, refused, resource=resource, purpose=purpose, now=now)
        raise EmergencyRefused(refused)
    opened = EmergencyAccess(
        id=randomness.uuid7(now),
        user_id=actor.user.pk,
        actor=str(actor.user.pk),
        resource=resource,
        permissions=permissions,
        purpose=purpose,
        reason=reason.strip(),
        opened_at=now,
        expires_at=now + duration,
        alert_due_at=now,
    )
    with transaction.atomic():
        opened.save(force_insert=True)
        enqueue_many(_create_open_events(opened, actor, now=now))
    return opened


def record_emergency_refusal(
    actor: Actor, refusal_code: str, *, now: datetime, resource: str = "", purpose: str = ""
) -> None:
    """Commit the event of a refusal. What is not of its form is not written down. Raises: AuditUnavailable."""
    record(
        Action.EMERGENCY_REFUSED,
        origin=actor.origin,
        now=now,
        outcome="failure",
        purpose=purpose if purpose in EMERGENCY_PURPOSES else "",
        resource=resource if is_resource_reference(resource) else "",
        reason=refusal_code,
    )


def _find_opening_refusal(
    actor: Actor, *, resource: str, permissions: Collection[str], purpose: str, reason: str, duration: timedelta
) -> str | None:
    """Return the code of the first rule that is not met, or None."""
    declared = conf.emergency()
    offered = declared.permissions.keys() if declared else set()
    rules = {
        SESSION_MISSING: bool(actor.origin.session),
        PERMISSION_MISSING: declared is not None and can_open(actor.user, resource),
        RESOURCE_INVALID: resource == ALL_RESOURCES or is_resource_reference(resource),
        PERMISSION_NOT_OFFERED: bool(permissions) and set(permissions) <= offered,
        PURPOSE_NOT_DECLARED: purpose in EMERGENCY_PURPOSES,
        REASON_MISSING: bool(reason.strip()),
        DURATION_INVALID: declared is not None and timedelta(0) < duration <= declared.longest,
    }
    return next((code for code, is_met in rules.items() if not is_met), None)


def _create_open_events(emergency: EmergencyAccess, actor: Actor, *, now: datetime) -> list[NewEvent]:
    is_everything = emergency.resource == ALL_RESOURCES
    resource = "" if is_everything else emergency.resource
    detail = {
        "emergency": str(emergency.id),
        "everything": is_everything,
        "permissions": emergency.permissions,
        "until": emergency.expires_at.astimezone(UTC).isoformat(timespec="seconds"),
    }
    alert = {"rule": "emergency_opened", "emergency": str(emergency.id)}
    return [
        NewEvent(
            action=Action.EMERGENCY_OPENED,
            origin=actor.origin,
            now=now,
            purpose=emergency.purpose,
            resource=resource,
            detail=detail,
        ),
        NewEvent(action=Action.ALERT_RAISED, origin=actor.origin, now=now, resource=resource, detail=alert),
    ]


EXPIRY_BATCH_SIZE = 500


def close_emergencies(
    emergency_ids: Collection[UUID], close_reason: CloseReason, *, origin: Origin, now: datetime, user_id: Any = None
) -> tuple[UUID, ...]:
    """Close those of these emergencies that are open, with their events, and return which. user: only this one's."""
    closed = []
    with transaction.atomic():
        rows = EmergencyAccess.objects.currently_open(now=now).filter(pk__in=emergency_ids)
        for row in rows if user_id is None else rows.filter(user=user_id):
            # By one statement each: of two who close it at once, one has the event.
            if EmergencyAccess.objects.filter(pk=row.pk, closed_at=None).update(
                closed_at=now, close_reason=close_reason
            ):
                closed.append(row)
        enqueue_many(
            [_create_end_event(Action.EMERGENCY_CLOSED, row, close_reason, origin=origin, now=now) for row in closed]
        )
    return tuple(row.pk for row in closed)


def mark_expired_emergencies(*, now: datetime) -> int:
    """Note of those emergencies whose time is over that it is, with their events, and return how many they were."""
    expired = []
    with transaction.atomic():
        for row in EmergencyAccess.objects.expired_unclosed(now=now).order_by("pk")[:EXPIRY_BATCH_SIZE]:
            its = EmergencyAccess.objects.filter(pk=row.pk, closed_at=None)
            if its.update(closed_at=F("expires_at"), close_reason=CloseReason.EXPIRED):
                expired.append(row)
        acts = [
            _create_end_event(Action.EMERGENCY_EXPIRED, row, "", origin=Origin(actor=row.actor), now=now)
            for row in expired
        ]
        enqueue_many(acts)
    return len(expired)


def _create_end_event(
    action: Action, emergency: EmergencyAccess, reason: str, *, origin: Origin, now: datetime
) -> NewEvent:
    return NewEvent(
        action=action,
        origin=origin,
        now=now,
        purpose=emergency.purpose,
        resource="" if emergency.resource == ALL_RESOURCES else emergency.resource,
        reason=str(reason),
        detail={"emergency": str(emergency.pk)},
    )


_LATE_EVENT_MARGIN = timedelta(minutes=1)
OWN_EMERGENCY, STILL_OPEN, ALREADY_REVIEWED = "own_emergency", "still_open", "already_reviewed"


@sensitive_variables("note")
def review_emergency(
    emergency_id: UUID, *, actor: Actor, verdict: ReviewVerdict, note: str, now: datetime
) -> EmergencyAccess:
    """Sign what actor says of the emergency, with its event, and return the row.

    Who opened it is refused, whatever their permissions, and so is anybody while it is open, and whoever comes second.
    Raises: EmergencyRefused, after `emergency.refused` is committed; AuditUnavailable; EmergencyAccess.DoesNotExist.
    """
    with transaction.atomic():
        row = EmergencyAccess.objects.select_for_update().get(pk=emergency_id)
        refused = _find_review_refusal(row, actor.user, now=now)
        if not refused:
            row.reviewed_by, row.reviewed_at, row.verdict = str(actor.user.pk), now, verdict
            row.note = note.strip() or None  # type: ignore[assignment]  # plain text is assigned, as fields.py says
            row.save(force_update=True)
            enqueue(
                Action.EMERGENCY_REVIEWED,
                origin=actor.origin,
                now=now,
                purpose=row.purpose,
                resource="" if row.resource == ALL_RESOURCES else row.resource,
                detail={"emergency": str(emergency_id), "verdict": str(verdict)},
            )
    if refused:
        detail = {"emergency": str(emergency_id)}
        record(Action.EMERGENCY_REFUSED, origin=actor.origin, now=now, outcome="failure", reason=refused, detail=detail)
        raise EmergencyRefused(refused)
    return row


def list_emergency_events(emergency: EmergencyAccess) -> Iterator[AuditEvent]:
    """Yield the events that bear the emergency, oldest first; what still waits in a spool is not among them.

    Raises: AuditUnavailable; RowUnreadable where an event of that person and time was altered to what is none.
    """
    # A request that came before the end is decided a moment later.
    until = (emergency.closed_at or emergency.expires_at) + _LATE_EVENT_MARGIN
    for event in iterate_events(EventFilters(actor=emergency.actor, since=emergency.opened_at, until=until)):
        if str(emergency.pk) in event.detail:
            yield event


def _find_review_refusal(row: EmergencyAccess, user: Any, *, now: datetime) -> str | None:
    if not (user.is_active and user.has_perm(REVIEW_PERMISSION)):
        return PERMISSION_MISSING
    if str(user.pk) == row.actor:
        return OWN_EMERGENCY
    if not row.has_ended(now=now):
        return STILL_OPEN
    return ALREADY_REVIEWED if row.reviewed_at is not None else None
