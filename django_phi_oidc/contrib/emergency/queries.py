"""Which emergency access a user may open, and which open one grants a permission.

Nothing is cached: each request reads the rows and compares the end with its own time, so an
emergency ends at the same time in all processes.
"""

from datetime import datetime
from typing import Any

from ...audit.request_context import Actor
from . import conf
from .models import ALL_RESOURCES, EmergencyAccess

OPEN_PERMISSION = "phi_oidc_emergency.open_emergencyaccess"
OPEN_EVERYWHERE_PERMISSION = "phi_oidc_emergency.open_emergencyaccess_everywhere"
REVIEW_PERMISSION = "phi_oidc_emergency.review_emergencyaccess"


def can_open(user: Any, resource: str) -> bool:
    """Return whether user may open an emergency for that resource. A user model without `has_perm`
    grants nothing.
    """
    has_perm = getattr(user, "has_perm", None)
    if has_perm is None or not user.is_active:
        return False
    return bool(
        has_perm(OPEN_EVERYWHERE_PERMISSION if resource == ALL_RESOURCES else OPEN_PERMISSION)
    )


def can_open_any(user: Any) -> bool:
    """Return whether user may open emergencies, for one resource or for all."""
    return can_open(user, "") or can_open(user, ALL_RESOURCES)


def has_session(actor: Actor) -> bool:
    """Return whether the actor has a session in which emergencies may be opened: of a provider, or
    local.
    """
    return bool(actor.origin.session) or actor.is_local


def list_open_emergencies(user: Any, *, now: datetime) -> list[EmergencyAccess]:
    """Return the open emergencies of user by their end, without the reasons."""
    rows = (
        EmergencyAccess.objects.currently_open(now=now)
        .filter(user=user.pk)
        .order_by("expires_at", "pk")
    )
    return list(rows.defer("reason", "note"))


def find_open_emergency(
    actor: Actor, *, resource: str, permission: str, now: datetime
) -> EmergencyAccess | None:
    """Return the open emergency of actor that grants permission on resource; one for it alone
    precedes one for all.

    Only in a session, because an access token grants only its scopes; and only in one of the kind
    that opened it, so that a local account gets no longer time, and a session of a provider no
    weaker assurance. None if the actor may no longer open it, or if the settings no longer offer
    the permission.
    """
    declaration = conf.emergency()
    if declaration is None or permission not in declaration.permissions or not has_session(actor):
        return None
    rows = EmergencyAccess.objects.currently_open(now=now)
    rows = rows.filter(
        user=actor.user.pk, is_local=actor.is_local, resource__in=[resource, ALL_RESOURCES]
    )
    rows = rows.defer("reason", "note")
    for row in sorted(rows, key=lambda row: row.resource == ALL_RESOURCES):
        if permission in row.permissions and can_open(actor.user, row.resource):
            return row
    return None
