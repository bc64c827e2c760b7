"""The decision whether somebody may see a resource: policy, then the event, committed; whatever it says."""

import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from .. import conf
from ..audit.events import Act, Action
from ..audit.outbox import MOVE_SECONDS
from ..audit.recording import record, record_many
from ..audit.request import Actor
from ..audit.spooling import drain, is_waiting, record_or_spool, spool
from ..errors import AuditUnavailable, KeyMissing
from .emergency import find_open
from .models import EmergencyAccess
from .policy import (
    PURPOSES,
    SESSION_MISSING,
    AccessPolicy,
    Assurance,
    is_resource,
    refuse_access,
    refuse_assurance,
)

logger = logging.getLogger("django_phi_oidc.access")
Find = Callable[[], Any]
"""Returns the object that the permission is for, or None: there is none."""


def decide(
    actor: Actor, policy: AccessPolicy, *, resource: str, purpose: str, find: Find | None, now: datetime
) -> str | None:
    """Return the code of the rule that refuses actor, or None: the resource may be seen. One event tells of either.

    resource: `Type/id`; purpose: the one that is stated, an HL7 code. What is not of that form is refused, and not
    written down: it may be anything. find: called when a session is there and nobody has refused yet; without it the
    permission is asked for no object. What is not found is refused as what is not permitted is: the difference
    would tell who is a patient here. Who lacks the permission may have it by an open emergency, for its purpose, and
    the event names both. Whoever has one is let in while the trail is away too, by a line of the spool in its place.
    Raises: AuditUnavailable, and then nothing is permitted; what `find` raises, with nothing decided.
    """
    is_asked = actor.is_vouched_for and is_resource(resource)
    is_there, is_permitted = _ask(actor, policy.permission, find) if is_asked else (False, False)

    def emergency() -> EmergencyAccess | None:
        return find_open(actor, resource=resource, permission=policy.permission, now=now) if is_there else None

    by = None if is_permitted else emergency()
    refused = refuse_access(
        policy,
        has_session=actor.is_vouched_for,
        resource=resource,
        permitted=is_permitted or by is not None,
        stated_purpose=purpose,
        too_weak=refuse_assurance(policy.assurance, acr=actor.acr, auth_time=actor.auth_time, now=now),
        emergency_purpose=by.purpose if by else "",
    )
    if by and not refused:
        purpose = by.purpose
    act = Act(
        action=Action.ACCESS_DENIED if refused else Action.ACCESS_GRANTED,
        origin=actor.origin,
        now=now,
        outcome="failure" if refused else "success",
        purpose=purpose if purpose in PURPOSES else "",
        resource=resource if is_resource(resource) else "",
        reason=refused or "",
        detail={**_by_client(actor), **_marked(by)},
    )
    if _record(act, by=by, find_emergency=emergency):
        _drain(now=now)
    return refused


def decide_assurance(actor: Actor, assurance: Assurance, *, now: datetime) -> str | None:
    """Return the code of the rule that refuses actor, after the event of that; None, and no event, where none does.

    Raises: AuditUnavailable: it is refused all the same.
    """
    if actor.is_vouched_for:
        refused = refuse_assurance(assurance, acr=actor.acr, auth_time=actor.auth_time, now=now)
    else:
        refused = SESSION_MISSING
    if refused:
        record(
            Action.ACCESS_DENIED,
            origin=actor.origin,
            now=now,
            outcome="failure",
            reason=refused,
            detail=_by_client(actor),
        )
    return refused


def _record(act: Act, *, by: EmergencyAccess | None, find_emergency: Callable[[], EmergencyAccess | None]) -> bool:
    """Say whether the event is in the trail: else it is a permit, under an emergency, and in the spool.

    Raises: AuditUnavailable, where it is in neither.
    """
    path = _spool_path() if act.outcome == "success" else None
    if path is not None and by is not None:
        return record_or_spool(act, path=path, seconds=MOVE_SECONDS)
    try:
        record_many([act])
    except AuditUnavailable:
        # Who needed no emergency so far may have opened one since nothing can be recorded.
        if path is None or (by := find_emergency()) is None:
            raise
        spool(act._replace(detail=_marked(by)), path=path)
        return False
    return True


def _by_client(actor: Actor) -> dict[str, str]:
    return {"client_id": actor.client_id} if actor.client_id else {}


def _marked(emergency: EmergencyAccess | None) -> dict[str, str]:
    return {"emergency": str(emergency.pk)} if emergency else {}


def _ask(actor: Actor, permission: str, find: Find | None) -> tuple[bool, bool]:
    """Return whether the object is there, and what Django's backends say, whichever they are.

    A user model without permissions gives none.
    """
    has_perm = getattr(actor.user, "has_perm", None)
    if has_perm is None or not permission:
        return False, False
    if find is None:
        return True, bool(has_perm(permission))
    found = find()
    # Asked for no object, a backend answers for all objects.
    return found is not None, found is not None and bool(has_perm(permission, found))


def _spool_path() -> Path | None:
    declared = conf.emergency()
    return declared.spool if declared else None


def _drain(*, now: datetime) -> None:
    """The trail could be written just now, so what waits beside it goes there. What fails waits for the next one."""
    path = _spool_path()
    if path is None or not is_waiting(path):
        return
    try:
        drain(path, now=now, seconds=MOVE_SECONDS)
    except (AuditUnavailable, KeyMissing, OSError) as fault:
        logger.error("The spool was not drained: %s.", type(fault).__name__)  # noqa: TRY400 -- the class says it
