"""Gauges: row counts that should stay low, queried when they are read."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import DEFAULT_DB_ALIAS, DatabaseError, InterfaceError
from django.db.models import QuerySet

from ..._internal import clock
from ...audit.connection_deadline import CLIENT_MARGIN_SECONDS, connection_deadline
from ...audit.models import AuditUnsealed
from ...audit.router import AUDIT_ALIAS
from ...audit.statement_timeout import read_statement_timeout
from ...claims.models import StoredClaim
from ...claims.retention_report import get_overdue_condition
from ...sessions.models import OIDCSession, PendingRevocation

logger = logging.getLogger("django_phi_oidc.metrics")
MAX_COUNT = 100_000
"""Counting stops here, to bound the time of a query."""
CACHE_SECONDS = 5.0
"""How long a number is cached, for any number of readers."""
STATEMENT_TIMEOUT_SECONDS = 2.0
"""For each query on PostgreSQL."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """A number of rows in one database."""

    help: str
    using: str
    rows: Callable[[datetime], QuerySet[Any]]


GAUGES: Mapping[str, Gauge] = {
    "sessions_live": Gauge(
        "Sessions that have not ended",
        DEFAULT_DB_ALIAS,
        lambda now: OIDCSession.objects.filter(ended_at=None),
    ),
    "revocations_due": Gauge(
        "Tokens that should have been revoked by now",
        DEFAULT_DB_ALIAS,
        PendingRevocation.objects.due,
    ),
    "claims_overdue": Gauge(
        "Expired claims that are not erased yet and that no legal hold keeps",
        DEFAULT_DB_ALIAS,
        lambda now: StoredClaim.objects.filter(get_overdue_condition(now=now)),
    ),
    "events_unsealed": Gauge(
        "Events that are not in the sealed log yet",
        AUDIT_ALIAS,
        lambda now: AuditUnsealed.objects.using(AUDIT_ALIAS).all(),
    ),
}
"""By name, without the prefix `phi_oidc`."""


def measure_gauges(*, now: datetime) -> dict[str, int]:
    """Return the gauges, each up to MAX_COUNT. One that cannot be counted in time is left out and
    logged.
    """
    counts = {}
    for name, gauge in GAUGES.items():
        try:
            with (
                connection_deadline(
                    STATEMENT_TIMEOUT_SECONDS + CLIENT_MARGIN_SECONDS, using=gauge.using
                ),
                read_statement_timeout(STATEMENT_TIMEOUT_SECONDS, using=gauge.using),
            ):
                counts[name] = gauge.rows(now)[:MAX_COUNT].count()
        except (DatabaseError, InterfaceError) as error:
            logger.warning("Cannot count %s: %s", name, type(error).__name__)
    return counts


class GaugeCache:
    """The gauges of this process, queried by one thread at a time and cached for CACHE_SECONDS."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._values: dict[str, int] = {}
        self._fresh_until = float("-inf")

    def read(self) -> dict[str, int]:
        """Return the gauges, up to CACHE_SECONDS old. Requires: no open transaction."""
        with self._lock:
            if self._monotonic() >= self._fresh_until:
                self._values = measure_gauges(now=clock.now())
                self._fresh_until = self._monotonic() + CACHE_SECONDS
            return self._values
