"""The policy decision point: evaluate the policy, then commit the event, for a grant as for a
refusal.
"""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from ..audit.events import Action, NewEvent
from ..audit.outbox import MOVE_TIMEOUT_SECONDS
from ..audit.purposes import PATIENT_REQUEST, PURPOSES
from ..audit.recorder import record, record_many
from ..audit.request_context import Actor, keep_reference
from ..errors import AuditUnavailable, KeyMissing
from ..extensions import (
    AccessOverride,
    access_overrides,
    disclosure_observers,
    event_queues,
    own_resource_rules,
    sign_in_demands,
)
from .no_store import add_notice
from .part2 import get_disclosure_detail, lacks_consent
from .policy import (
    SESSION_MISSING,
    SIGN_IN_DEMANDED,
    AccessPolicy,
    Assurance,
    find_access_refusal,
    find_assurance_refusal,
    is_resource_reference,
)

logger = logging.getLogger("django_phi_oidc.access")
FindObject = Callable[[], Any]
"""Returns the object that the permission is checked for, or None if there is none."""


def authorize(
    actor: Actor,
    policy: AccessPolicy,
    *,
    resource: str,
    purpose: str,
    find_object: FindObject | None,
    now: datetime,
    find_consent: Callable[[], str] | None = None,
) -> str | None:
    """Return the code of the rule that refuses actor, or None if access is granted. Either way, one
    event is recorded.

    resource: `Type/id`. purpose: the stated HL7 code. A value of another form is refused and not
    recorded, because it may contain anything. find_object: called only if the actor has a session
    and no rule has refused yet; None checks the permission without an object. A missing object is
    refused like a missing permission: a different answer would disclose who is a patient here. An
    access override, such as an open emergency, replaces a missing permission, for its own purpose,
    and the event names it. A local account always needs one; it also replaces the policy's
    assurance, which only a provider states.
    find_consent: returns a reference, for a policy with a label. It is called only if the
    permission or an override admits actor: others must not learn from it for which patients there
    is a consent. An override replaces it (42 CFR 2.51), and users need none for their own resource
    at their own request (42 CFR 2.23).
    With an override whose source has a spool, access is granted even if the audit log is
    unavailable: the event is spooled.
    Raises: AuditUnavailable, and then nothing is permitted; exceptions of the functions, before a
    decision is made.
    """
    has_session = actor.is_authenticated_by_provider or actor.is_local
    is_checkable = has_session and is_resource_reference(resource)
    if is_checkable:
        exists, has_permission = _check_permission(actor, policy.permission, find_object)
    else:
        exists = False
        has_permission = False

    is_permitted = has_permission and not actor.is_local

    if actor.is_local:
        assurance = Assurance()
    else:
        assurance = policy.assurance

    def find_override(*, with_spool: bool = False) -> AccessOverride | None:
        if not exists:
            return None
        for source in access_overrides:
            if with_spool and not source.has_spool():
                continue
            override = source.find_override(
                actor, resource=resource, permission=policy.permission, now=now
            )
            if override is not None:
                return override
        return None

    is_labelled = policy.label is not None and not (
        purpose == PATIENT_REQUEST and _is_own_resource(actor.user, resource)
    )

    if is_permitted:
        override = None
    else:
        override = find_override()

    if find_consent and is_labelled and (is_permitted or override):
        consent = find_consent()
    else:
        consent = ""

    needs_consent = is_labelled and lacks_consent(policy.label, consent)
    if needs_consent and is_permitted:
        override = find_override()
    refusal = find_access_refusal(
        policy,
        has_session=has_session,
        resource=resource,
        is_permitted=is_permitted or override is not None,
        stated_purpose=purpose,
        lacks_consent=needs_consent and override is None,
        assurance_refusal=_find_assurance_refusal(actor, assurance, now=now),
        emergency_purpose=override.purpose if override else "",
        needs_emergency=actor.is_local,
    )
    if override and not refusal:
        purpose = override.purpose
    detail = _get_sign_in_detail(actor)
    if override:
        detail.update(override.detail)
    event = _build_decision_event(
        actor, refusal, resource=resource, purpose=purpose, detail=detail, now=now
    )
    if not refusal:
        for observe in disclosure_observers:
            observe(actor.user, now=now, resource=resource)
    if is_labelled and not refusal:
        add_notice(actor.request)
        label_detail = get_disclosure_detail(consent, has_response=actor.request is not None)
        event = event._replace(detail={**(event.detail or {}), **label_detail})
    is_recorded = _record_decision(
        event,
        actor,
        override=override,
        find_override_with_spool=lambda: find_override(with_spool=True),
    )
    if is_recorded:
        _flush_event_queues(now=now)
    return refusal


def _is_own_resource(user: Any, resource: str) -> bool:
    return any(is_own(user, resource) for is_own in own_resource_rules)


def _find_assurance_refusal(actor: Actor, assurance: Assurance, *, now: datetime) -> str | None:
    refusal = find_assurance_refusal(
        assurance, acr=actor.acr, vot=actor.vot, auth_time=actor.auth_time, now=now
    )
    if refusal:
        return refusal
    for is_demanded in sign_in_demands:
        if is_demanded(actor):
            return SIGN_IN_DEMANDED
    return None


def _build_decision_event(
    actor: Actor,
    refusal: str | None,
    *,
    resource: str,
    purpose: str,
    detail: dict[str, Any],
    now: datetime,
) -> NewEvent:
    if refusal:
        action = Action.ACCESS_DENIED
    else:
        action = Action.ACCESS_GRANTED
    return NewEvent(
        action=action,
        origin=actor.origin,
        now=now,
        outcome="failure" if refusal else "success",
        purpose=purpose if purpose in PURPOSES else "",
        resource=resource if is_resource_reference(resource) else "",
        reason=refusal or "",
        detail=detail,
    )


def has_permission(user: Any, permission: str, obj: Any = None) -> bool:
    """Return whether Django's backends grant the permission for everything, or for obj if there is
    one.

    Both are checked: `ModelBackend` grants nothing for an object, other backends may grant nothing
    without one. A user model without `has_perm` has no permission.
    """
    has_perm = getattr(user, "has_perm", None)
    return has_perm is not None and bool(
        has_perm(permission) or (obj is not None and has_perm(permission, obj))
    )


def authorize_assurance(
    actor: Actor, assurance: Assurance, *, page: str, records_grant: bool, now: datetime
) -> str | None:
    """Return the refusal code, or None if access is granted, after the event is committed.

    page: as in record_page_grant. records_grant: False if another event of this request says that
    it was granted.
    Raises: AuditUnavailable, and then nothing is permitted.
    """
    refusal: str | None = SESSION_MISSING
    if actor.is_authenticated_by_provider:
        refusal = _find_assurance_refusal(actor, assurance, now=now)
    if refusal:
        detail = _get_page_detail(actor, page)
        origin = actor.origin
        event_id = record(
            Action.ACCESS_DENIED,
            origin=origin,
            now=now,
            outcome="failure",
            reason=refusal,
            detail=detail,
        )
        keep_reference(actor.request, event_id)
    elif records_grant:
        record_page_grant(actor, page=page, now=now)
    return refusal


def record_page_grant(actor: Actor, *, page: str, now: datetime) -> None:
    """Commit the event of access to a page that has no resource. page: the name of its view in the
    URL configuration.

    Raises: AuditUnavailable, and then nothing is permitted.
    """
    record(
        Action.ACCESS_GRANTED, origin=actor.origin, now=now, detail=_get_page_detail(actor, page)
    )


def _record_decision(
    event: NewEvent,
    actor: Actor,
    *,
    override: AccessOverride | None,
    find_override_with_spool: Callable[[], AccessOverride | None],
) -> bool:
    """Return whether the event is in the audit log; if not, it is spooled. Raises: AuditUnavailable
    if in neither.
    """
    is_permit = event.outcome == "success"
    if is_permit and override is not None and override.source.has_spool():
        return override.source.record_or_spool(event)
    try:
        (event_id,) = record_many([event])
    except AuditUnavailable:
        if not is_permit:
            raise
        # An actor with the permission may still have opened an override because the audit log is
        # unavailable.
        override = find_override_with_spool()
        if override is None:
            raise
        detail = {**(event.detail or {}), **override.detail}
        override.source.spool_event(event._replace(detail=detail))
        return False
    if event.action == Action.ACCESS_DENIED:
        keep_reference(actor.request, event_id)
    return True


def _get_sign_in_detail(actor: Actor) -> dict[str, Any]:
    if actor.is_local:
        return {"local": True}
    if actor.client_id:
        return {"client_id": actor.client_id}
    return {}


def _get_page_detail(actor: Actor, page: str) -> dict[str, Any]:
    return {**_get_sign_in_detail(actor), **({"page": page} if page else {})}


def _check_permission(
    actor: Actor, permission: str, find_object: FindObject | None
) -> tuple[bool, bool]:
    """Return whether the object exists, and whether Django's backends grant the permission on
    it.
    """
    has_perm = getattr(actor.user, "has_perm", None)  # a user model may have none
    if has_perm is None or not permission:
        return False, False
    if find_object is None:
        return True, bool(has_perm(permission))
    obj = find_object()
    # Without an object, a backend would answer for all objects.
    return obj is not None, obj is not None and bool(has_perm(permission, obj))


def _flush_event_queues(*, now: datetime) -> None:
    """Move the queued events of this machine to the audit log, which is writable again. A queue
    that fails is retried after the next decision.
    """
    for queue in event_queues:
        if not queue.has_events():
            continue
        try:
            queue.flush(now=now, timeout_seconds=MOVE_TIMEOUT_SECONDS)
        except (AuditUnavailable, KeyMissing, OSError) as error:
            logger.error(  # noqa: TRY400 -- the class is enough
                "The %s was not flushed: %s.", queue.name, type(error).__name__
            )
