"""A lease on a row: one worker holds it for a while, and a killed worker loses it when it ends.

A lease is taken by one conditional UPDATE, never by a lock, so that no transaction is open during network calls.
"""

from datetime import datetime, timedelta
from typing import Any, Self, TypeVar

from django.db import models
from django.db.models import Q

M = TypeVar("M", bound=models.Model)


class LeasedQuerySet(models.QuerySet[M]):
    """Queries of a model with a nullable `lease_until`."""

    def unleased(self, now: datetime) -> Self:
        """Return the rows that no worker holds at now."""
        return self.filter(Q(lease_until=None) | Q(lease_until__lte=now))

    def acquire_lease(self, pk: Any, *, now: datetime, lease: timedelta, **changes: Any) -> bool:
        """Take the lease of one row and write changes with it; return False when another worker holds it.

        Commit before the work begins: until then, other workers do not see the lease.
        """
        return bool(self.unleased(now).filter(pk=pk).update(lease_until=now + lease, **changes))
