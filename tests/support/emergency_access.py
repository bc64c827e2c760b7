"""Users who may open emergency access, and the events of it."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.request_context import Actor
from django_phi_oidc.contrib.emergency.lifecycle import open_emergency
from django_phi_oidc.contrib.emergency.models import EmergencyAccess
from tests.support.guarded_views import PERMISSION

OFFICER = "privacy@example.org"
REASON = "emergency-reason-canary: no pulse"


def declared(**changed: Any) -> dict[str, Any]:
    declaration = {
        "permissions": {PERMISSION: "See a chart", "portal.view_letter": "Read letters"},
        "mail_to": [OFFICER],
    }
    return {**declaration, **changed}


def declare(settings: Any, spool: Path | None = None, **changed: Any) -> None:
    spool_setting = {"spool": str(spool)} if spool else {}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "EMERGENCY": declared(**spool_setting, **changed)}


def allow(user: Any, *codenames: str) -> Any:
    """Grant permissions, and return the user reloaded, because Django caches permissions."""
    user.user_permissions.add(*Permission.objects.filter(codename__in=codenames))
    return get_user_model()._default_manager.get(pk=user.pk)


def forbid(user: Any) -> Any:
    user.user_permissions.clear()
    return get_user_model()._default_manager.get(pk=user.pk)


def actor(user: Any, session: str = "a-session", **fields: Any) -> Actor:
    return Actor(user=user, origin=Origin(actor=str(user.pk), session=session), **fields)


def opened(user: Any, resource: str, **changed: Any) -> EmergencyAccess:
    arguments: dict[str, Any] = {
        "resource": resource,
        "permissions": [PERMISSION],
        "purpose": "ETREAT",
        "reason": REASON,
        "duration": timedelta(hours=1),
        "now": clock.now(),
        **changed,
    }
    return open_emergency(actor(user), **arguments)


def list_events(prefix: str = "emergency.") -> list[tuple[str, str, dict[str, Any]]]:
    events = AuditEvent.objects.filter(action__startswith=prefix).order_by("id")
    return [(event.action, event.reason, json.loads(event.detail)) for event in events]
