"""A value is spent once, across all processes."""

import hashlib
from datetime import datetime

from django.db import IntegrityError, connections, router, transaction

from .._internal.sql import durable, insert
from .models import UsedIdentifier


def mark_used(kind: str, identifier: str, *, expires_at: datetime) -> bool:
    """Return True exactly once for each kind and value, and only when that is committed.

    until: the time from which the value would be refused for its age, and may be forgotten here.
    Requires: no open transaction (RuntimeError): a rollback would give the value back.
    """
    using = router.db_for_write(UsedIdentifier)
    try:
        with durable(using):
            insert([UsedIdentifier(digest=_compute_digest(kind, identifier), kind=kind, until=expires_at)], using=using)
    except IntegrityError:
        return False
    return True


def mark_used_in_transaction(kind: str, identifier: str, *, expires_at: datetime) -> bool:
    """Return True once for each kind and value, as `spend` does, and give the value back if the transaction rolls back.

    Whoever spends the same value meanwhile waits for that transaction's end.
    Requires: an open transaction (RuntimeError).
    """
    using = router.db_for_write(UsedIdentifier)
    if not connections[using].in_atomic_block:
        raise RuntimeError("What is spent with a transaction needs an open one.")
    try:
        # A frame of its own, or PostgreSQL would do nothing more for the caller.
        with transaction.atomic(using=using):
            insert([UsedIdentifier(digest=_compute_digest(kind, identifier), kind=kind, until=expires_at)], using=using)
    except IntegrityError:
        return False
    return True


def was_used(kind: str, identifier: str) -> bool:
    """Say whether that value was spent, as far as it is still remembered."""
    return UsedIdentifier.objects.filter(digest=_compute_digest(kind, identifier)).exists()


def delete_expired(*, now: datetime) -> int:
    """Forget what is refused for its age by now, and return how many values that were."""
    return UsedIdentifier.objects.filter(until__lt=now).delete()[0]


def _compute_digest(kind: str, identifier: str) -> str:
    # Kinds are names of ours and bear no NUL, so no two pairs run together.
    return hashlib.sha256(f"{kind}\0{identifier}".encode()).hexdigest()
