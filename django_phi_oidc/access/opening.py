"""Somebody takes permissions in an emergency: for one resource or for all, with a reason, and for a time.

The events of it and the mail that is due are committed with the row itself, on `default`: no emergency is open that
the trail will not have, and the trail being away keeps nobody from it. Spec: 45 CFR 164.312(a)(2)(ii).
"""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from django.db import transaction
from django.views.decorators.debug import sensitive_variables

from .. import conf, entropy
from ..audit.events import Act, Action
from ..audit.outbox import enqueue_many
from ..audit.recording import record
from ..audit.request import Actor
from ..errors import EmergencyRefused
from .emergency import may_open
from .models import EVERYTHING, EmergencyAccess
from .policy import (
    EMERGENCY_PURPOSES,
    PERMISSION_MISSING,
    PURPOSE_NOT_DECLARED,
    RESOURCE_INVALID,
    SESSION_MISSING,
    is_resource,
)

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
    lasts: timedelta,
    now: datetime,
) -> EmergencyAccess:
    """Open an emergency access of actor, and return it. resource: `Type/id`, or EVERYTHING. purpose: ETREAT or BTG.

    It is open when the caller's transaction is committed. The privacy officer is told by the next run of beat, and the
    SIEM by the alert.
    Raises: EmergencyRefused, after `emergency.refused` is committed; AuditUnavailable where it can't be.
    """
    permissions = sorted(set(permissions))
    refused = _refuse(actor, resource=resource, permissions=permissions, purpose=purpose, reason=reason, lasts=lasts)
    if refused:
        tell_refused(actor, refused, resource=resource, purpose=purpose, now=now)
        raise EmergencyRefused(refused)
    opened = EmergencyAccess(
        id=entropy.uuid7(now),
        user_id=actor.user.pk,
        actor=str(actor.user.pk),
        resource=resource,
        permissions=permissions,
        purpose=purpose,
        reason=reason.strip(),
        opened_at=now,
        expires_at=now + lasts,
        alert_due_at=now,
    )
    with transaction.atomic():
        opened.save(force_insert=True)
        enqueue_many(_acts(opened, actor, now=now))
    return opened


def tell_refused(actor: Actor, reason: str, *, now: datetime, resource: str = "", purpose: str = "") -> None:
    """Commit the event of a refusal. What is not of its form is not written down. Raises: AuditUnavailable."""
    record(
        Action.EMERGENCY_REFUSED,
        origin=actor.origin,
        now=now,
        outcome="failure",
        purpose=purpose if purpose in EMERGENCY_PURPOSES else "",
        resource=resource if is_resource(resource) else "",
        reason=reason,
    )


def _refuse(
    actor: Actor, *, resource: str, permissions: Collection[str], purpose: str, reason: str, lasts: timedelta
) -> str | None:
    """Return the code of the first rule that is not met, or None."""
    declared = conf.emergency()
    offered = declared.permissions.keys() if declared else set()
    rules = {
        SESSION_MISSING: bool(actor.origin.session),
        PERMISSION_MISSING: declared is not None and may_open(actor.user, resource),
        RESOURCE_INVALID: resource == EVERYTHING or is_resource(resource),
        PERMISSION_NOT_OFFERED: bool(permissions) and set(permissions) <= offered,
        PURPOSE_NOT_DECLARED: purpose in EMERGENCY_PURPOSES,
        REASON_MISSING: bool(reason.strip()),
        DURATION_INVALID: declared is not None and timedelta(0) < lasts <= declared.longest,
    }
    return next((code for code, is_met in rules.items() if not is_met), None)


def _acts(opened: EmergencyAccess, actor: Actor, *, now: datetime) -> list[Act]:
    is_everything = opened.resource == EVERYTHING
    resource = "" if is_everything else opened.resource
    detail = {
        "emergency": str(opened.id),
        "everything": is_everything,
        "permissions": opened.permissions,
        "until": opened.expires_at.astimezone(UTC).isoformat(timespec="seconds"),
    }
    alert = {"rule": "emergency_opened", "emergency": str(opened.id)}
    return [
        Act(
            action=Action.EMERGENCY_OPENED,
            origin=actor.origin,
            now=now,
            purpose=opened.purpose,
            resource=resource,
            detail=detail,
        ),
        Act(action=Action.ALERT_RAISED, origin=actor.origin, now=now, resource=resource, detail=alert),
    ]
