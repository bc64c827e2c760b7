"""Find people by the UUID of a subject, a session or an event."""

import uuid
from typing import Any

from django.contrib.auth import get_user_model
from django.http import HttpRequest

from ...audit import search
from ...audit.admin_base import record_request_event
from ...audit.events import Action
from ...audit.models import AuditEvent
from ...sessions.models import OIDCSession
from ...subjects.models import PairwiseSubject
from ...subjects.person_search import AccountMatches, find_account_by_key


def find_people_by_id(request: HttpRequest, id_: uuid.UUID) -> AccountMatches:
    """Return the accounts that a UUID of a subject, a session or an event leads to, for users who
    may view that row.

    An event leads to the person that it is about, otherwise to its actor. It shows what that person
    did, so this is recorded as a view of the event. Raises: AuditUnavailable.
    """
    has_perm = request.user.has_perm
    keys = list[Any]()
    if has_perm("django_phi_oidc.view_pairwisesubject"):
        keys += PairwiseSubject.objects.filter(uuid=id_).values_list("user", flat=True)
    if has_perm("django_phi_oidc.view_oidcsession"):
        keys += OIDCSession.objects.filter(pk=id_).values_list("user", flat=True)
    if not keys and has_perm("phi_oidc_audit.view_auditevent"):
        keys += _list_accounts_of_event(request, id_)
    accounts = get_user_model()._base_manager.filter(
        pk__in={key for key in keys if key is not None}
    )
    return AccountMatches(accounts=tuple(accounts))


def _list_accounts_of_event(request: HttpRequest, id_: uuid.UUID) -> list[Any]:
    try:
        event = search.find_event(id_)
    except search.RowUnreadable:
        event = None
    if event is None:
        return []
    detail = {"page": "event", "filters": []}
    resource = f"AuditEvent/{id_}"
    record_request_event(
        request, Action.AUDIT_VIEWED, subject=event.subject, resource=resource, detail=detail
    )
    keys = _list_subject_accounts(event)
    if keys:
        return keys

    actor = find_account_by_key(event.actor)
    if actor:
        return [actor.pk]
    return []


def _list_subject_accounts(event: AuditEvent) -> list[Any]:
    try:
        subject = uuid.UUID(event.subject)
    except ValueError:
        return []
    return list(
        PairwiseSubject.objects.filter(uuid=subject, user__isnull=False).values_list(
            "user", flat=True
        )
    )
