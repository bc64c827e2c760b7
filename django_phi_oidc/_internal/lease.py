"""A lease on a row: one worker holds the row until the lease ends, so a killed worker blocks it for a limited time.

A lease is acquired by one conditional UPDATE and not by a lock, so no transaction is open during network calls.
"""

from datetime import datetime, timedelta
from typing import Any, ClassVar, Self, TypeVar

from django.db import connections, models, transaction
from django.db.models import Q

M = TypeVar("M", bound=models.Model)


class LeasedQuerySet(models.QuerySet[M]):
    """Queries of a model with a nullable column for the end of the lease."""

    lease_field: ClassVar[str] = "lease_until"

    def unleased(self, now: datetime) -> Self:
        """Return the rows that no worker holds at now."""
        return self.filter(Q(**{self.lease_field: None}) | Q(**{f"{self.lease_field}__lte": now}))

    def acquire_lease(self, pk: Any, *, now: datetime, lease: timedelta, **changes: Any) -> bool:
        """Acquire the lease of one row and write changes with it; return False if the row is leased or locked.

        It does not wait for a transaction that locks the row: its process may be stopped, and other rows are due.
        Commit before the work begins: until then, other workers do not see the lease.
        """
        free = self.unleased(now).filter(pk=pk)
        with transaction.atomic(using=self.db, savepoint=False):
            if connections[self.db].features.has_select_for_update_skip_locked:
                free = self.filter(pk__in=free.select_for_update(skip_locked=True).values("pk"))
            return bool(free.update(**{self.lease_field: now + lease}, **changes))

    def release_lease(self, pk: Any, *, expires_at: datetime) -> bool:
        """Release the lease that ends at expires_at; return False if another worker has acquired the row since."""
        return bool(self.filter(pk=pk, **{self.lease_field: expires_at}).update(**{self.lease_field: None}))
