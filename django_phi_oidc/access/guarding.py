"""The decision whether somebody may see a resource: policy, then the event, committed; whatever it says."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from ..audit.events import Action
from ..audit.recording import record
from ..audit.request import Actor
from .policy import (
    PURPOSES,
    SESSION_MISSING,
    AccessPolicy,
    Assurance,
    is_resource,
    refuse_access,
    refuse_assurance,
)

Find = Callable[[], Any]
"""Returns the object that the permission is for, or None: there is none."""


def decide(
    actor: Actor, policy: AccessPolicy, *, resource: str, purpose: str, find: Find | None, now: datetime
) -> str | None:
    """Return the code of the rule that refuses actor, or None: the resource may be seen. One event tells of either.

    resource: `Type/id`; purpose: the one that is stated, an HL7 code. What is not of that form is refused, and not
    written down: it may be anything. find: called when a session is there and nobody has refused yet; without it the
    permission is asked for no object. What is not found is refused as what is not permitted is: the difference
    would tell who is a patient here.
    Raises: AuditUnavailable, and then nothing is permitted; what `find` raises, with nothing decided.
    """
    has_session = actor.is_vouched_for
    is_asked = has_session and is_resource(resource)
    refused = refuse_access(
        policy,
        has_session=has_session,
        resource=resource,
        permitted=is_asked and _is_permitted(actor, policy.permission, find),
        stated_purpose=purpose,
        too_weak=refuse_assurance(policy.assurance, acr=actor.acr, auth_time=actor.auth_time, now=now),
    )
    record(
        Action.ACCESS_DENIED if refused else Action.ACCESS_GRANTED,
        origin=actor.origin,
        now=now,
        outcome="failure" if refused else "success",
        purpose=purpose if purpose in PURPOSES else "",
        resource=resource if is_resource(resource) else "",
        reason=refused or "",
        detail=_by_client(actor),
    )
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


def _by_client(actor: Actor) -> dict[str, str]:
    return {"client_id": actor.client_id} if actor.client_id else {}


def _is_permitted(actor: Actor, permission: str, find: Find | None) -> bool:
    """Ask Django's backends, whichever they are. A user model without permissions gives none."""
    has_perm = getattr(actor.user, "has_perm", None)
    if has_perm is None or not permission:
        return False
    if find is None:
        return bool(has_perm(permission))
    found = find()
    # Asked for no object, a backend answers for all objects.
    return found is not None and bool(has_perm(permission, found))
