"""How much there is now of what should not pile up: numbers that the database is asked for when somebody looks."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import DEFAULT_DB_ALIAS, DatabaseError, InterfaceError
from django.db.models import Q, QuerySet

from .. import clock
from ..audit.models import AuditUnsealed
from ..audit.routing import AUDIT_ALIAS
from ..claims.models import StoredClaim
from ..sessions.models import OIDCSession, PendingRevocation
from ..statements import reading_within

logger = logging.getLogger("django_phi_oidc.metrics")
MOST = 100_000
"""No further is counted: nobody who looks waits for more, and it would tell nothing more."""
FRESH_SECONDS = 5.0
"""For how long a number is not asked for again, however many look."""
SECONDS = 2.0
"""That PostgreSQL may take for one of them."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """A number of rows of one database."""

    help: str
    using: str
    rows: Callable[[datetime], QuerySet[Any]]


def _overdue(now: datetime) -> QuerySet[Any]:
    return StoredClaim.objects.filter(Q(held_until=None) | Q(held_until__lte=now), expires_at__lte=now)


GAUGES: Mapping[str, Gauge] = {
    "sessions_live": Gauge(
        "Sessions that have not ended", DEFAULT_DB_ALIAS, lambda now: OIDCSession.objects.filter(ended_at=None)
    ),
    "revocations_due": Gauge(
        "Tokens that should have been revoked by now", DEFAULT_DB_ALIAS, PendingRevocation.objects.due
    ),
    "claims_overdue": Gauge(
        "Claims whose time is over, that nobody has erased yet and no legal hold keeps", DEFAULT_DB_ALIAS, _overdue
    ),
    "events_unsealed": Gauge(
        "Events of the trail that are not in the sealed log",
        AUDIT_ALIAS,
        lambda now: AuditUnsealed.objects.using(AUDIT_ALIAS).all(),
    ),
}
"""By name, without the prefix `phi_oidc`."""


def measure(*, now: datetime) -> dict[str, int]:
    """Return the gauges, each MOST at most; one that a database does not give in time is left out, and logged."""
    found = {}
    for name, gauge in GAUGES.items():
        try:
            with reading_within(SECONDS, using=gauge.using):
                found[name] = gauge.rows(now)[:MOST].count()
        except (DatabaseError, InterfaceError) as error:
            logger.warning("%s can't be counted: %s", name, type(error).__name__)
    return found


class Gauges:
    """The gauges of this process, asked for by one thread at a time and not again for FRESH_SECONDS."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._known: dict[str, int] = {}
        self._until = float("-inf")

    def read(self) -> dict[str, int]:
        """Return what `measure` does, some seconds old at most. Requires: no open transaction."""
        with self._lock:
            if self._monotonic() >= self._until:
                self._known = measure(now=clock.now())
                self._until = self._monotonic() + FRESH_SECONDS
            return self._known
