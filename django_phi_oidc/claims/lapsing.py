"""Retention keys go when no claim needs them: what a backup still holds under them can't be read by anybody then."""

import uuid
from datetime import datetime, timedelta

from .. import buckets
from ..audit.events import Action, Origin
from ..audit.recording import record
from .holding import active_holds
from .models import LegalHold, StoredClaim

MARGIN = timedelta(hours=1)
"""After the end of a day: what was obtained before midnight is committed by then, by any server's clock."""


def destroy_lapsed(*, now: datetime) -> list[str]:
    """Destroy the retention keys that no claim bears, and none will; return their names. Each is an event before it is.

    Raises: KeyMissing, AuditUnavailable: what is left is for the next run.
    """
    if not buckets.is_used():
        return []
    store = buckets.store()
    destroyed = []
    for name in store.names():
        if _may_be_needed(name, now=now) or StoredClaim.objects.filter(bucket=name).exists():
            continue
        record(Action.RETENTION_KEY_DESTROYED, origin=Origin(), now=now, detail={"bucket": name})
        store.destroy(name)
        destroyed.append(name)
    return destroyed


def _may_be_needed(name: str, *, now: datetime) -> bool:
    day = buckets.day_of(name)
    if day is not None:
        return day >= (now - MARGIN).date()
    hold = uuid.UUID(name.removeprefix("hold-"))
    # One that nobody knows is being placed at this moment.
    return not LegalHold.objects.filter(pk=hold).exists() or active_holds(now=now).filter(pk=hold).exists()
