"""Open, close, expire and review emergency access. Spec: 45 CFR 164.312(a)(2)(ii).

The events and the due alert mail are committed with the row, on `default`: every open emergency is
recorded, and an unavailable audit log prevents no emergency. Expiry needs no task, because each
check compares the clock; `mark_expired_emergencies` only records it in the row and in the audit
log.
"""

from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import F
from django.utils.translation import ngettext
from django.views.decorators.debug import sensitive_variables

from ..._internal import randomness
from ...access.policy import (
    PERMISSION_MISSING,
    PURPOSE_NOT_DECLARED,
    RESOURCE_INVALID,
    SESSION_MISSING,
    is_resource_reference,
)
from ...audit.events import Action, NewEvent, Origin
from ...audit.models import AuditEvent
from ...audit.outbox import enqueue_many
from ...audit.purposes import EMERGENCY_PURPOSES
from ...audit.recorder import record, record_many
from ...audit.request_context import Actor
from ...audit.search import EventFilters, iterate_events
from ..common.visible_text import has_visible_text
from . import conf
from .declaration import EmergencyDeclaration
from .errors import EmergencyRefused
from .models import ALL_RESOURCES, CloseReason, EmergencyAccess, ReviewVerdict
from .queries import REVIEW_PERMISSION, can_open, has_session

PERMISSION_NOT_OFFERED = "permission_not_offered"
REASON_MISSING = "reason_missing"
DURATION_INVALID = "duration_invalid"
TOO_MANY_UNREVIEWED = "too_many_unreviewed"
COUNTING_PERIOD = timedelta(hours=24)
"""How long an opening counts towards `max_unreviewed`."""
OWN_EMERGENCY = "own_emergency"
STILL_OPEN = "still_open"
ALREADY_REVIEWED = "already_reviewed"
EXPIRY_BATCH_SIZE = 500
LATE_EVENT_MARGIN = timedelta(minutes=1)
"""A request that began before the end of an emergency may be decided a moment later."""


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
    """Open an emergency access for actor, and return it. resource: `Type/id` or ALL_RESOURCES.
    purpose: ETREAT or BTG.

    It is open when the caller's transaction is committed. The periodic task mails the privacy
    officer; the alert event reaches the SIEM. A person can have `max_unreviewed` emergencies
    without a review that were opened within 24 hours.
    Raises: EmergencyRefused, after `emergency.refused` is committed; AuditUnavailable if that
    fails.
    """
    permissions = sorted(set(permissions))
    declaration = conf.emergency()
    refusal = _find_opening_refusal(
        actor,
        declaration,
        resource=resource,
        permissions=permissions,
        purpose=purpose,
        reason=reason,
        duration=duration,
    )
    if refusal or declaration is None:
        record_emergency_refusal(
            actor, refusal or PERMISSION_MISSING, resource=resource, purpose=purpose, now=now
        )
        raise EmergencyRefused(refusal or PERMISSION_MISSING)
    emergency = EmergencyAccess(
        id=randomness.uuid7(now),
        user_id=actor.user.pk,
        actor=str(actor.user.pk),
        is_local=actor.is_local,
        resource=resource,
        permissions=permissions,
        purpose=purpose,
        reason=reason.strip(),
        opened_at=now,
        expires_at=now + duration,
        alert_due_at=now,
    )
    detail = {
        "everything": resource == ALL_RESOURCES,
        "permissions": permissions,
        "until": emergency.expires_at.astimezone(UTC).isoformat(timespec="seconds"),
        **({"local": True} if actor.is_local else {}),
    }
    opened = _create_event(Action.EMERGENCY_OPENED, emergency, detail, origin=actor.origin, now=now)
    alert = _create_event(
        Action.ALERT_RAISED, emergency, {"rule": "emergency_opened"}, origin=actor.origin, now=now
    )._replace(purpose="")
    with transaction.atomic():
        is_permitted = _count_unreviewed_openings(actor, now=now) < declaration.max_unreviewed
        if is_permitted:
            emergency.save(force_insert=True)
            enqueue_many([opened, alert])
    if not is_permitted:
        record_emergency_refusal(
            actor, TOO_MANY_UNREVIEWED, resource=resource, purpose=purpose, now=now
        )
        raise EmergencyRefused(TOO_MANY_UNREVIEWED)
    return emergency


def record_emergency_refusal(
    actor: Actor, code: str, *, now: datetime, resource: str = "", purpose: str = ""
) -> UUID:
    """Commit the event of a refusal, without values of an invalid form, and its alert, and return
    its id.

    Raises: AuditUnavailable.
    """
    refusal = NewEvent(
        action=Action.EMERGENCY_REFUSED,
        origin=actor.origin,
        now=now,
        outcome="failure",
        purpose=purpose if purpose in EMERGENCY_PURPOSES else "",
        resource=resource if is_resource_reference(resource) else "",
        reason=code,
        detail={},
    )
    alert = NewEvent(
        action=Action.ALERT_RAISED, origin=actor.origin, now=now, detail={"rule": "emergency_limit"}
    )
    return record_many([refusal, alert] if code == TOO_MANY_UNREVIEWED else [refusal])[0]


def close_emergencies(
    emergency_ids: Collection[UUID],
    close_reason: CloseReason,
    *,
    origin: Origin,
    now: datetime,
    user_id: Any = None,
) -> tuple[UUID, ...]:
    """Close the open ones of these emergencies, with their events, and return their ids. user_id:
    only of this user.
    """
    with transaction.atomic():
        rows = EmergencyAccess.objects.currently_open(now=now).filter(pk__in=emergency_ids)

        if user_id is not None:
            rows = rows.filter(user=user_id)

        closed = []
        for row in rows:
            if _mark_closed(row, closed_at=now, close_reason=close_reason):
                closed.append(row)
        events = []
        for row in closed:
            event = _create_event(
                Action.EMERGENCY_CLOSED, row, reason=close_reason, origin=origin, now=now
            )
            events.append(event)
        enqueue_many(events)
    return tuple(row.pk for row in closed)


def close_selected_emergencies(
    emergency_ids: Collection[UUID], *, origin: Origin, now: datetime
) -> str:
    """Close these emergency accesses as an administrator, and return a message for the page."""
    closed_ids = close_emergencies(emergency_ids, CloseReason.ADMINISTRATOR, origin=origin, now=now)
    count = len(closed_ids)
    text = ngettext(
        "%(count)d emergency access was closed.", "%(count)d emergency accesses were closed.", count
    )
    return text % {"count": count}


def mark_expired_emergencies(*, now: datetime) -> int:
    """Mark the expired emergencies as closed, with their events, and return their number."""
    closed_at = F("expires_at")
    with transaction.atomic():
        rows = (
            EmergencyAccess.objects.expired_unclosed(now=now)
            .order_by("pk")
            .select_for_update(skip_locked=True)
        )
        expired = []
        for row in rows[:EXPIRY_BATCH_SIZE]:
            if _mark_closed(row, closed_at=closed_at, close_reason=CloseReason.EXPIRED):
                expired.append(row)
        events = []
        for row in expired:
            origin = Origin(actor=row.actor)
            events.append(_create_event(Action.EMERGENCY_EXPIRED, row, origin=origin, now=now))
        enqueue_many(events)
    return len(expired)


@sensitive_variables("note")
def review_emergency(
    pk: UUID, *, actor: Actor, verdict: ReviewVerdict, note: str, now: datetime
) -> EmergencyAccess:
    """Store actor's review of an emergency, with its event, and return the row.

    Refused for the person who opened it, even with the permission; while it is open; and if it is
    already reviewed.
    Raises: EmergencyRefused, after `emergency.refused` is committed; AuditUnavailable;
    EmergencyAccess.DoesNotExist.
    """
    with transaction.atomic():
        row = EmergencyAccess.objects.select_for_update().get(pk=pk)
        refusal = _find_review_refusal(row, actor.user, now=now)
        if not refusal:
            row.reviewed_by = str(actor.user.pk)
            row.reviewed_at = now
            row.verdict = verdict
            row.note = note.strip() or None  # type: ignore[assignment]  # plain text is assigned, see fields.py
            if row.alerted_at is not None:
                # The reminder is not needed any more.
                row.alert_due_at = None
            row.save(force_update=True)
            detail = {"verdict": str(verdict)}
            enqueue_many(
                [
                    _create_event(
                        Action.EMERGENCY_REVIEWED, row, detail, origin=actor.origin, now=now
                    )
                ]
            )
    if refusal:
        detail = {"emergency": str(pk)}
        record(
            Action.EMERGENCY_REFUSED,
            origin=actor.origin,
            now=now,
            outcome="failure",
            reason=refusal,
            detail=detail,
        )
        raise EmergencyRefused(refusal)
    return row


def list_emergency_events(emergency: EmergencyAccess) -> Iterator[AuditEvent]:
    """Yield the events that name the emergency, oldest first, without those that are still in a
    spool.

    Raises: AuditUnavailable; RowUnreadable if an event of that person and time was altered and
    cannot be parsed.
    """
    until = emergency.get_end() + LATE_EVENT_MARGIN
    for event in iterate_events(
        EventFilters(actor=emergency.actor, since=emergency.opened_at, until=until)
    ):
        if str(emergency.pk) in event.detail:
            yield event


def _mark_closed(row: EmergencyAccess, **changes: Any) -> int:
    """Use a conditional UPDATE: of two concurrent calls, only one records the event."""
    return EmergencyAccess.objects.filter(pk=row.pk, closed_at=None).update(**changes)


def _find_opening_refusal(
    actor: Actor,
    declaration: EmergencyDeclaration | None,
    *,
    resource: str,
    permissions: Collection[str],
    purpose: str,
    reason: str,
    duration: timedelta,
) -> str | None:
    """Return the code of the first rule that is not met, or None."""
    offered: Collection[str]
    if declaration:
        offered = declaration.permissions.keys()
    else:
        offered = set()

    if declaration:
        longest = declaration.get_longest(is_local=actor.is_local)
    else:
        longest = timedelta(0)

    rules = {
        SESSION_MISSING: has_session(actor),
        PERMISSION_MISSING: declaration is not None and can_open(actor.user, resource),
        RESOURCE_INVALID: resource == ALL_RESOURCES or is_resource_reference(resource),
        PERMISSION_NOT_OFFERED: bool(permissions) and set(permissions) <= offered,
        PURPOSE_NOT_DECLARED: purpose in EMERGENCY_PURPOSES,
        REASON_MISSING: has_visible_text(reason),
        DURATION_INVALID: timedelta(0) < duration <= longest,
    }
    for code, is_met in rules.items():
        if not is_met:
            return code
    return None


def _count_unreviewed_openings(actor: Actor, *, now: datetime) -> int:
    """Return how many emergencies the actor has opened lately that have no review. Locks the
    account until the commit.

    Without the lock, concurrent openings could exceed the limit.
    """
    user_pk: Any = actor.user.pk
    list(
        get_user_model()
        ._base_manager.filter(pk=user_pk)
        .select_for_update(no_key=True)
        .values_list("pk")
    )
    return EmergencyAccess.objects.filter(
        actor=str(actor.user.pk), opened_at__gt=now - COUNTING_PERIOD, reviewed_at=None
    ).count()


def _find_review_refusal(row: EmergencyAccess, user: Any, *, now: datetime) -> str | None:
    if not (user.is_active and user.has_perm(REVIEW_PERMISSION)):
        return PERMISSION_MISSING
    if str(user.pk) == row.actor:
        return OWN_EMERGENCY
    if not row.has_ended(now=now):
        return STILL_OPEN

    if row.reviewed_at is not None:
        return ALREADY_REVIEWED
    return None


def _create_event(
    action: Action,
    emergency: EmergencyAccess,
    detail: Any = None,
    *,
    origin: Origin,
    now: datetime,
    reason: str = "",
) -> NewEvent:
    if emergency.resource == ALL_RESOURCES:
        resource = ""
    else:
        resource = emergency.resource
    return NewEvent(
        action=action,
        origin=origin,
        now=now,
        purpose=emergency.purpose,
        resource=resource,
        reason=str(reason),
        detail={"emergency": str(emergency.pk), **(detail or {})},
    )
