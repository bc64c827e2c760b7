"""Emergency access as the core sees it: an override of a missing permission, and a queue of events.

`conf` is read at each call, because tests and the parsed settings may change.
"""

from datetime import datetime
from pathlib import Path

from django.urls import NoReverseMatch, reverse
from django.utils.http import urlencode

from ...audit.events import NewEvent
from ...audit.outbox import MOVE_TIMEOUT_SECONDS
from ...audit.request_context import Actor
from ...errors import AuditUnavailable
from ...extensions import AccessOverride
from . import conf, spool
from .queries import can_open_any, find_open_emergency


class EmergencyOverrides:
    """The source of access overrides; see `AccessOverrideSource`."""

    def is_offered(self, permission: str | None = None) -> bool:
        declaration = conf.emergency()
        if declaration is None:
            return False
        return permission is None or permission in declaration.permissions

    def requires_assurance(self) -> bool:
        declaration = conf.emergency()
        return declaration is not None and bool(declaration.acr)

    def find_override(
        self, actor: Actor, *, resource: str, permission: str, now: datetime
    ) -> AccessOverride | None:
        emergency = find_open_emergency(actor, resource=resource, permission=permission, now=now)
        if emergency is None:
            return None
        return AccessOverride(
            source=self, purpose=emergency.purpose, detail={"emergency": str(emergency.pk)}
        )

    def find_opening_url(self, actor: Actor, *, resource: str, next_url: str) -> str:
        if conf.emergency() is None or not can_open_any(actor.user):
            return ""
        try:
            url = reverse("oidc_emergency")
        except NoReverseMatch:
            return ""
        return f"{url}?{urlencode({'resource': resource, 'next': next_url})}"

    def has_spool(self) -> bool:
        return _find_spool_path() is not None

    def record_or_spool(self, new_event: NewEvent) -> bool:
        return spool.record_or_spool(
            new_event, path=_get_spool_path(), timeout_seconds=MOVE_TIMEOUT_SECONDS
        )

    def spool_event(self, new_event: NewEvent) -> None:
        spool.spool_event(new_event, path=_get_spool_path())


class SpoolQueue:
    """The spool as a queue of events; see `EventQueue`."""

    name = "spool"

    def has_events(self) -> bool:
        path = _find_spool_path()
        return path is not None and spool.has_spooled_events(path)

    def flush(self, *, now: datetime, timeout_seconds: float | None = None) -> int:
        path = _find_spool_path()
        if path is None:
            return 0
        return spool.flush_spool(path, now=now, timeout_seconds=timeout_seconds)


EMERGENCY_OVERRIDES = EmergencyOverrides()
SPOOL_QUEUE = SpoolQueue()


def _find_spool_path() -> Path | None:
    declaration = conf.emergency()
    if declaration is None:
        return None
    return declaration.spool


def _get_spool_path() -> Path:
    """Raises: AuditUnavailable if no spool is declared."""
    path = _find_spool_path()
    if path is None:
        raise AuditUnavailable("No spool is declared.")
    return path
