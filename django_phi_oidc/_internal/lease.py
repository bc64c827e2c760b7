"""A lease on a row: one worker holds the row until the lease ends, so a killed worker blocks it for
a limited time.

A lease is acquired by one conditional UPDATE and not by a lock, so no transaction is open during
network calls.
"""

from datetime import datetime, timedelta
from typing import Any, ClassVar, Self, TypeVar

from django.db import connections, models, transaction
from django.db.models import Q

M = TypeVar("M", bound=models.Model)
_MAX_DURATIONS = 2
"""A lease that ends later than after so many durations was written by a clock that was ahead. More
than one, because the clocks of two servers differ.
"""


def is_lease_active(lease_until: datetime | None, *, now: datetime, lease: timedelta) -> bool:
    """Say whether a worker holds a row whose lease ends at lease_until. lease: the duration of a
    lease.

    A lease that ends much later than that was written by a clock that was ahead, and would block
    the row for as long.
    """
    return lease_until is not None and now < lease_until <= now + _MAX_DURATIONS * lease


class LeasedQuerySet(models.QuerySet[M]):
    """Queries of a model with a nullable column for the end of the lease."""

    lease_field: ClassVar[str] = "lease_until"

    def unleased(self, now: datetime, *, lease: timedelta) -> Self:
        """Return the rows that no worker holds at now. lease: the duration of a lease, see
        `is_lease_active`.
        """
        ended = Q(**{self.lease_field: None}) | Q(**{f"{self.lease_field}__lte": now})
        return self.filter(ended | Q(**{f"{self.lease_field}__gt": now + _MAX_DURATIONS * lease}))

    def acquire_lease(self, pk: Any, *, now: datetime, lease: timedelta, **changes: Any) -> bool:
        """Acquire the lease of one row and write changes with it; return False if the row is leased
        or locked.

        It does not wait for a transaction that locks the row: its process may be stopped, and other
        rows are due. Commit before the work begins: until then, other workers do not see the lease.
        """
        free = self.unleased(now, lease=lease).filter(pk=pk)
        with transaction.atomic(using=self.db, savepoint=False):
            if connections[self.db].features.has_select_for_update_skip_locked:
                free = self.filter(pk__in=free.select_for_update(skip_locked=True).values("pk"))
            return bool(free.update(**{self.lease_field: now + lease}, **changes))

    def release_lease(self, pk: Any, *, expires_at: datetime) -> bool:
        """Release the lease that ends at expires_at; return False if another worker has acquired
        the row since.
        """
        return bool(
            self.filter(pk=pk, **{self.lease_field: expires_at}).update(**{self.lease_field: None})
        )
