"""The trail as the story reads it: what came since the last look, in the order in which it happened."""

import time
from collections.abc import Iterable

from django_phi_oidc.audit.models import AuditEvent

SECONDS = 20.0


class Missing(Exception):
    """Events that should have come did not."""


def line(event: AuditEvent) -> str:
    """Return what is worth telling of an event: no address, no identifier."""
    return " ".join(filter(None, (event.action, event.outcome, event.reason, event.purpose)))


def is_due_scrub(event: AuditEvent) -> bool:
    """Say whether the worker erased something because its time was over: that comes when it comes."""
    return event.action == "claim.scrubbed" and not event.session


class Trail:
    """Reads the trail, each event once."""

    def __init__(self) -> None:
        self._told = set(AuditEvent.objects.values_list("pk", flat=True))

    def wait_for(self, expected: Iterable[str]) -> list[AuditEvent]:
        """Return the events that were not told yet, once each of `expected`, the beginning of a line, is among them.

        The worker's own are left for the step that waits for them.
        Raises: Missing, after 20 s.
        """
        wanted = tuple(expected)
        deadline = time.monotonic() + SECONDS
        while missing := [words for words in wanted if not self._has(words)]:
            if time.monotonic() > deadline:
                raise Missing(f"the trail has no {', no '.join(missing)}")
            time.sleep(0.1)
        return self._take(wanted)

    def rest(self) -> list[AuditEvent]:
        """Return what was not told yet, whatever it is."""
        return self._take(())

    def _take(self, wanted: tuple[str, ...]) -> list[AuditEvent]:
        news = [
            event for event in self._untold() if not is_due_scrub(event) or line(event).startswith(wanted or ("-",))
        ]
        self._told.update(event.pk for event in news)
        return news

    def _has(self, words: str) -> bool:
        return any(line(event).startswith(words) for event in self._untold())

    def _untold(self) -> Iterable[AuditEvent]:
        return AuditEvent.objects.exclude(pk__in=self._told).order_by("occurred_at", "pk")
