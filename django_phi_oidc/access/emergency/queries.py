"""Which emergency access somebody may open, and which one permits what they ask for now.

Nothing is cached: each request reads the rows and compares their end with its own time, so that an emergency is over
for the next request of every process.
"""

from datetime import datetime
from typing import Any

from ... import conf
from ...audit.request_context import Actor
from .models import ALL_RESOURCES, EmergencyAccess

OPEN_PERMISSION = "django_phi_oidc.open_emergencyaccess"
OPEN_EVERYWHERE_PERMISSION = "django_phi_oidc.open_emergencyaccess_everywhere"
REVIEW_PERMISSION = "django_phi_oidc.review_emergencyaccess"


def can_open(user: Any, resource: str) -> bool:
    """Say whether user may open an emergency for that resource. A user model without permissions gives none."""
    has_perm = getattr(user, "has_perm", None)
    if has_perm is None or not user.is_active:
        return False
    return bool(has_perm(OPEN_EVERYWHERE_PERMISSION if resource == ALL_RESOURCES else OPEN_PERMISSION))


def list_open_emergencies(user: Any, *, now: datetime) -> list[EmergencyAccess]:
    """Return the open emergencies of user, the one that ends first before the others; without their reasons."""
    rows = EmergencyAccess.objects.currently_open(now=now).filter(user=user.pk).order_by("expires_at", "pk")
    return list(rows.defer("reason", "note"))


def find_open_emergency(actor: Actor, *, resource: str, permission: str, now: datetime) -> EmergencyAccess | None:
    """Return the open emergency of actor that gives permission on resource: one for it alone before one for all.

    Only in a session of a provider: an access token is for what its scopes say. Whoever may not open it any more has
    none, nor has anybody for a permission that the settings no longer name.
    """
    declared = conf.emergency()
    if declared is None or permission not in declared.permissions or not actor.origin.session:
        return None
    rows = EmergencyAccess.objects.currently_open(now=now).filter(
        user=actor.user.pk, resource__in=[resource, ALL_RESOURCES]
    )
    for row in sorted(rows.defer("reason", "note"), key=lambda row: row.resource == ALL_RESOURCES):
        if permission in row.permissions and can_open(actor.user, row.resource):
            return row
    return None
