"""A value is spent once, across all processes."""

import hashlib
from datetime import datetime

from django.db import IntegrityError, router

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


def was_spent(kind: str, value: str) -> bool:
    """Say whether that value was spent, as far as it is still remembered."""
    return SpentValue.objects.filter(digest=_digest(kind, value)).exists()


def prune(*, now: datetime) -> int:
    """Forget what is refused for its age by now, and return how many values that were."""
    return SpentValue.objects.filter(until__lt=now).delete()[0]


def _digest(kind: str, value: str) -> str:
    # Kinds are names of ours and bear no NUL, so no two pairs run together.
    return hashlib.sha256(f"{kind}\0{value}".encode()).hexdigest()
