"""How much there is now of what should not pile up: numbers that the database is asked for when somebody looks."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime

from django.db import DEFAULT_DB_ALIAS, DatabaseError, InterfaceError
from django.db.models import Q, QuerySet

from .. import clock
from ..audit.models import AuditUnsealed
from ..audit.routing import AUDIT_ALIAS
from ..claims.models import StoredClaim
from ..sessions.models import OIDCSession, PendingRevocation
from ..statements import within

logger = logging.getLogger("django_phi_oidc.metrics")
MOST = 100_000
"""No further is counted: nobody who looks waits for more, and it would tell nothing more."""
FRESH_SECONDS = 5.0
"""For how long a number is not asked for again, however many look."""
SECONDS = 2.0
"""That PostgreSQL may take for one of them."""
GAUGES: Mapping[str, str] = {
    "sessions_live": "Sessions that have not ended",
    "revocations_due": "Tokens that should have been revoked by now",
    "claims_overdue": "Claims whose time is over, that no legal hold keeps and nobody has erased yet",
    "events_unsealed": "Events of the trail that are not in the sealed log",
}


def _rows(name: str, now: datetime) -> QuerySet[OIDCSession | PendingRevocation | StoredClaim | AuditUnsealed]:
    unheld = Q(held_until=None) | Q(held_until__lte=now)
    queries: Mapping[str, Callable[[], QuerySet[OIDCSession | PendingRevocation | StoredClaim | AuditUnsealed]]] = {
        "sessions_live": lambda: OIDCSession.objects.filter(ended_at=None),
        "revocations_due": lambda: PendingRevocation.objects.due(now),
        "claims_overdue": lambda: StoredClaim.objects.filter(unheld, expires_at__lte=now),
        "events_unsealed": lambda: AuditUnsealed.objects.using(AUDIT_ALIAS),
    }
    return queries[name]()


def measure(*, now: datetime) -> dict[str, int]:
    """Return the gauges, each MOST at most; one that a database does not give in time is left out, and logged."""
    found = {}
    for name in GAUGES:
        alias = AUDIT_ALIAS if name == "events_unsealed" else DEFAULT_DB_ALIAS
        try:
            with within(SECONDS, using=alias):
                found[name] = _rows(name, now)[:MOST].count()
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
