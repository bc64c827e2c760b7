"""Which emergency access somebody may open, and which one permits what they ask for now.

Nothing is cached: each request reads the rows and compares their end with its own time, so that an emergency is over
for the next request of every process.
"""

from datetime import datetime
from typing import Any

from .. import conf
from ..audit.request import Actor
from .models import EVERYTHING, EmergencyAccess

OPEN = "django_phi_oidc.open_emergencyaccess"
OPEN_EVERYTHING = "django_phi_oidc.open_emergencyaccess_everywhere"
REVIEW = "django_phi_oidc.review_emergencyaccess"


def may_open(user: Any, resource: str) -> bool:
    """Say whether user may open an emergency for that resource. A user model without permissions gives none."""
    has_perm = getattr(user, "has_perm", None)
    if has_perm is None or not user.is_active:
        return False
    return bool(has_perm(OPEN_EVERYTHING if resource == EVERYTHING else OPEN))


def own_open(user: Any, *, now: datetime) -> list[EmergencyAccess]:
    """Return the open emergencies of user, the one that ends first before the others; without their reasons."""
    rows = EmergencyAccess.objects.lasting(now=now).filter(user=user.pk).order_by("expires_at", "pk")
    return list(rows.defer("reason", "note"))


def find_open(actor: Actor, *, resource: str, permission: str, now: datetime) -> EmergencyAccess | None:
    """Return the open emergency of actor that gives permission on resource: one for it alone before one for all.

    Only in a session of a provider: an access token is for what its scopes say. Whoever may not open it any more has
    none, nor has anybody for a permission that the settings no longer name.
    """
    declared = conf.emergency()
    if declared is None or permission not in declared.permissions or not actor.origin.session:
        return None
    rows = EmergencyAccess.objects.lasting(now=now).filter(user=actor.user.pk, resource__in=[resource, EVERYTHING])
    for row in sorted(rows.defer("reason", "note"), key=lambda row: row.resource == EVERYTHING):
        if permission in row.permissions and may_open(actor.user, row.resource):
            return row
    return None
