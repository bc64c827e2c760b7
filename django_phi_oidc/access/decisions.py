"""The decision whether somebody may see a resource: policy, then the event, committed; whatever it says."""

import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from .. import conf
from ..audit.events import Action, NewEvent
from ..audit.outbox import MOVE_TIMEOUT_SECONDS
from ..audit.recorder import record, record_many
from ..audit.request_context import Actor
from ..audit.spool import flush_spool, has_spooled_events, record_or_spool, spool_event
from ..errors import AuditUnavailable, KeyMissing
from .emergency.models import EmergencyAccess
from .emergency.queries import find_open_emergency
from .policy import (
    PURPOSES,
    SESSION_MISSING,
    AccessPolicy,
    Assurance,
    find_access_refusal,
    find_assurance_refusal,
    is_resource_reference,
)

logger = logging.getLogger("django_phi_oidc.access")
FindObject = Callable[[], Any]
"""Returns the object that the permission is for, or None: there is none."""


def authorize(
    actor: Actor, policy: AccessPolicy, *, resource: str, purpose: str, find_object: FindObject | None, now: datetime
) -> str | None:
    """Return the code of the rule that refuses actor, or None: the resource may be seen. One event tells of either.

    resource: `Type/id`; purpose: the one that is stated, an HL7 code. What is not of that form is refused, and not
    written down: it may be anything. find: called when a session is there and nobody has refused yet; without it the
    permission is asked for no object. What is not found is refused as what is not permitted is: the difference
    would tell who is a patient here. Who lacks the permission may have it by an open emergency, for its purpose, and
    the event names both. Whoever has one is let in while the trail is away too, by a line of the spool in its place.
    Raises: AuditUnavailable, and then nothing is permitted; what `find` raises, with nothing decided.
    """
    is_asked = actor.is_authenticated_by_provider and is_resource_reference(resource)
    is_there, is_permitted = _check_permission(actor, policy.permission, find_object) if is_asked else (False, False)

    def emergency() -> EmergencyAccess | None:
        return (
            find_open_emergency(actor, resource=resource, permission=policy.permission, now=now) if is_there else None
        )

    by = None if is_permitted else emergency()
    refused = find_access_refusal(
        policy,
        has_session=actor.is_authenticated_by_provider,
        resource=resource,
        is_permitted=is_permitted or by is not None,
        stated_purpose=purpose,
        assurance_refusal=find_assurance_refusal(policy.assurance, acr=actor.acr, auth_time=actor.auth_time, now=now),
        emergency_purpose=by.purpose if by else "",
    )
    if by and not refused:
        purpose = by.purpose
    act = NewEvent(
        action=Action.ACCESS_DENIED if refused else Action.ACCESS_GRANTED,
        origin=actor.origin,
        now=now,
        outcome="failure" if refused else "success",
        purpose=purpose if purpose in PURPOSES else "",
        resource=resource if is_resource_reference(resource) else "",
        reason=refused or "",
        detail={**_get_client_detail(actor), **_get_emergency_detail(by)},
    )
    if _record_decision(act, emergency=by, find_emergency=emergency):
        _flush_spool(now=now)
    return refused


def authorize_assurance(actor: Actor, assurance: Assurance, *, now: datetime) -> str | None:
    """Return the code of the rule that refuses actor, after the event of that; None, and no event, where none does.

    Raises: AuditUnavailable: it is refused all the same.
    """
    if actor.is_authenticated_by_provider:
        refused = find_assurance_refusal(assurance, acr=actor.acr, auth_time=actor.auth_time, now=now)
    else:
        refused = SESSION_MISSING
    if refused:
        record(
            Action.ACCESS_DENIED,
            origin=actor.origin,
            now=now,
            outcome="failure",
            reason=refused,
            detail=_get_client_detail(actor),
        )
    return refused


def _record_decision(
    new_event: NewEvent, *, emergency: EmergencyAccess | None, find_emergency: Callable[[], EmergencyAccess | None]
) -> bool:
    """Say whether the event is in the trail: else it is a permit, under an emergency, and in the spool.

    Raises: AuditUnavailable, where it is in neither.
    """
    path = _find_spool_path() if new_event.outcome == "success" else None
    if path is not None and emergency is not None:
        return record_or_spool(new_event, path=path, timeout_seconds=MOVE_TIMEOUT_SECONDS)
    try:
        record_many([new_event])
    except AuditUnavailable:
        # Who needed no emergency so far may have opened one since nothing can be recorded.
        if path is None or (emergency := find_emergency()) is None:
            raise
        spool_event(new_event._replace(detail=_get_emergency_detail(emergency)), path=path)
        return False
    return True


def _get_client_detail(actor: Actor) -> dict[str, str]:
    return {"client_id": actor.client_id} if actor.client_id else {}


def _get_emergency_detail(emergency: EmergencyAccess | None) -> dict[str, str]:
    return {"emergency": str(emergency.pk)} if emergency else {}


def _check_permission(actor: Actor, permission: str, find_object: FindObject | None) -> tuple[bool, bool]:
    """Return whether the object is there, and what Django's backends say, whichever they are.

    A user model without permissions gives none.
    """
    has_perm = getattr(actor.user, "has_perm", None)
    if has_perm is None or not permission:
        return False, False
    if find_object is None:
        return True, bool(has_perm(permission))
    found = find_object()
    # Asked for no object, a backend answers for all objects.
    return found is not None, found is not None and bool(has_perm(permission, found))


def _find_spool_path() -> Path | None:
    declared = conf.emergency()
    return declared.spool if declared else None


def _flush_spool(*, now: datetime) -> None:
    """The trail could be written just now, so what waits beside it goes there. What fails waits for the next one."""
    path = _find_spool_path()
    if path is None or not has_spooled_events(path):
        return
    try:
        flush_spool(path, now=now, timeout_seconds=MOVE_TIMEOUT_SECONDS)
    except (AuditUnavailable, KeyMissing, OSError) as fault:
        logger.error("The spool was not drained: %s.", type(fault).__name__)  # noqa: TRY400 -- the class says it
