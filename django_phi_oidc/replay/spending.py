"""A value is spent once, across all processes."""

import hashlib
from datetime import datetime

from django.db import IntegrityError, connections, router, transaction

from ..statements import durably, insert
from .models import SpentValue


def spend(kind: str, value: str, *, until: datetime) -> bool:
    """Return True exactly once for each kind and value, and only when that is committed.

    until: the time from which the value would be refused for its age, and may be forgotten here.
    Requires: no open transaction (RuntimeError): a rollback would give the value back.
    """
    using = router.db_for_write(SpentValue)
    try:
        with durably(using):
            insert([SpentValue(digest=_digest(kind, value), kind=kind, until=until)], using=using)
    except IntegrityError:
        return False
    return True


def spend_with_transaction(kind: str, value: str, *, until: datetime) -> bool:
    """Return True once for each kind and value, as `spend` does, and give the value back if the transaction rolls back.

    Whoever spends the same value meanwhile waits for that transaction's end.
    Requires: an open transaction (RuntimeError).
    """
    using = router.db_for_write(SpentValue)
    if not connections[using].in_atomic_block:
        raise RuntimeError("What is spent with a transaction needs an open one.")
    try:
        # A frame of its own, or PostgreSQL would do nothing more for the caller.
        with transaction.atomic(using=using):
            insert([SpentValue(digest=_digest(kind, value), kind=kind, until=until)], using=using)
    except IntegrityError:
        return False
    return True


def was_spent(kind: str, value: str) -> bool:
    """Say whether that value was spent, as far as it is still remembered."""
    return SpentValue.objects.filter(digest=_digest(kind, value)).exists()


def prune(*, now: datetime) -> int:
    """Forget what is refused for its age by now, and return how many values that were."""
    return SpentValue.objects.filter(until__lt=now).delete()[0]


def _digest(kind: str, value: str) -> str:
    # Kinds are names of ours and bear no NUL, so no two pairs run together.
    return hashlib.sha256(f"{kind}\0{value}".encode()).hexdigest()
