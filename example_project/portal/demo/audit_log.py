"""Reads new audit events in the order in which they occurred."""

import time
from collections.abc import Iterable

from django_phi_oidc.audit.models import AuditEvent

TIMEOUT_SECONDS = 20.0


class EventsMissing(Exception):
    """Expected events were not recorded."""


def format_event(event: AuditEvent) -> str:
    """Return an event as text, without addresses and identifiers."""
    return " ".join(filter(None, (event.action, event.outcome, event.reason, event.purpose)))


def is_retention_scrub(event: AuditEvent) -> bool:
    """Return whether the worker erased an expired claim, which may happen at any time."""
    return event.action == "claim.scrubbed" and not event.session


class AuditLogReader:
    """Returns each audit event once."""

    def __init__(self) -> None:
        self._read_ids = set(AuditEvent.objects.values_list("pk", flat=True))

    def wait_for(self, expected: Iterable[str]) -> list[AuditEvent]:
        """Wait until each expected prefix matches a new event, then return the new events.

        Scrubs of expired claims are only returned to the step that expects them.
        Raises: EventsMissing after 20 s.
        """
        prefixes = tuple(expected)
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while missing := [prefix for prefix in prefixes if not self._has_unread(prefix)]:
            if time.monotonic() > deadline:
                raise EventsMissing(f"the audit log has no {', no '.join(missing)}")
            time.sleep(0.1)
        return self._take(prefixes)

    def read_remaining(self) -> list[AuditEvent]:
        """Return all other new events."""
        return self._take(())

    def _take(self, prefixes: tuple[str, ...]) -> list[AuditEvent]:
        events = [
            event
            for event in self._query_unread()
            if not is_retention_scrub(event) or format_event(event).startswith(prefixes or ("-",))
        ]
        self._read_ids.update(event.pk for event in events)
        return events

    def _has_unread(self, prefix: str) -> bool:
        return any(format_event(event).startswith(prefix) for event in self._query_unread())

    def _query_unread(self) -> Iterable[AuditEvent]:
        return AuditEvent.objects.exclude(pk__in=self._read_ids).order_by("occurred_at", "pk")
