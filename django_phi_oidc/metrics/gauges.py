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

from .._internal import clock
from .._internal.sql import read_statement_timeout
from ..audit.models import AuditUnsealed
from ..audit.router import AUDIT_ALIAS
from ..claims.models import StoredClaim
from ..sessions.models import OIDCSession, PendingRevocation

logger = logging.getLogger("django_phi_oidc.metrics")
MAX_COUNT = 100_000
"""No further is counted: nobody who looks waits for more, and it would tell nothing more."""
CACHE_SECONDS = 5.0
"""For how long a number is not asked for again, however many look."""
STATEMENT_TIMEOUT_SECONDS = 2.0
"""That PostgreSQL may take for one of them."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """A number of rows of one database."""

    help: str
    using: str
    rows: Callable[[datetime], QuerySet[Any]]


def _overdue_claims(now: datetime) -> QuerySet[Any]:
    return StoredClaim.objects.filter(Q(held_until=None) | Q(held_until__lte=now), expires_at__lte=now)


GAUGES: Mapping[str, Gauge] = {
    "sessions_live": Gauge(
        "Sessions that have not ended", DEFAULT_DB_ALIAS, lambda now: OIDCSession.objects.filter(ended_at=None)
    ),
    "revocations_due": Gauge(
        "Tokens that should have been revoked by now", DEFAULT_DB_ALIAS, PendingRevocation.objects.due
    ),
    "claims_overdue": Gauge(
        "Claims whose time is over, that nobody has erased yet and no legal hold keeps",
        DEFAULT_DB_ALIAS,
        _overdue_claims,
    ),
    "events_unsealed": Gauge(
        "Events of the trail that are not in the sealed log",
        AUDIT_ALIAS,
        lambda now: AuditUnsealed.objects.using(AUDIT_ALIAS).all(),
    ),
}
"""By name, without the prefix `phi_oidc`."""


def measure_gauges(*, now: datetime) -> dict[str, int]:
    """Return the gauges, each MOST at most; one that a database does not give in time is left out, and logged."""
    found = {}
    for name, gauge in GAUGES.items():
        try:
            with read_statement_timeout(STATEMENT_TIMEOUT_SECONDS, using=gauge.using):
                found[name] = gauge.rows(now)[:MAX_COUNT].count()
        except (DatabaseError, InterfaceError) as error:
            logger.warning("%s can't be counted: %s", name, type(error).__name__)
    return found


class GaugeCache:
    """The gauges of this process, asked for by one thread at a time and not again for FRESH_SECONDS."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._values: dict[str, int] = {}
        self._fresh_until = float("-inf")

    def read(self) -> dict[str, int]:
        """Return what `measure` does, some seconds old at most. Requires: no open transaction."""
        with self._lock:
            if self._monotonic() >= self._fresh_until:
                self._values = measure_gauges(now=clock.now())
                self._fresh_until = self._monotonic() + CACHE_SECONDS
            return self._values
