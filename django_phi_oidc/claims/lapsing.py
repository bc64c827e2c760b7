"""Retention keys go when no claim needs them: what a backup still holds under them can't be read by anybody then."""

import uuid
from datetime import datetime, timedelta

from django.db import connection

from .. import buckets, entropy
from ..audit.events import Action, Origin
from ..audit.recording import record
from .holding import active_holds
from .models import LegalHold, StoredClaim

MARGIN = timedelta(hours=1)
"""After the end of a day or of a hold: what was obtained before it is committed by then, by any server's clock."""

UUID7 = 7
"""The version of a hold's id, which tells when it was placed. Spec: RFC 9562 5.7."""


def destroy_lapsed(*, now: datetime) -> list[str]:
    """Destroy the retention keys that no claim bears, and none will; return their names. Each is an event before it is.

    Raises: KeyMissing, AuditUnavailable: what is left is for the next run.
    """
    if not buckets.is_used():
        return []
    store = buckets.store()
    names = list(store.names())
    borne, destroyed = _borne() if names else (), []
    for name in names:
        if name in borne or _may_be_needed(name, now=now):
            continue
        record(Action.RETENTION_KEY_DESTROYED, origin=Origin(), now=now, detail={"bucket": name})
        store.destroy(name)
        destroyed.append(name)
    return destroyed


def _borne() -> set[str]:
    """Return the names of the keys that claims bear: one look into the index for each, by one statement."""
    table = connection.ops.quote_name(StoredClaim._meta.db_table)
    least = f"SELECT min(bucket) FROM {table} WHERE bucket <> ''"  # noqa: S608 -- the model's name
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH RECURSIVE borne(name) AS (SELECT ({least}) UNION ALL"  # noqa: S608
            f" SELECT ({least} AND bucket > borne.name) FROM borne WHERE borne.name IS NOT NULL)"
            " SELECT name FROM borne WHERE name IS NOT NULL"
        )
        return {name for (name,) in cursor.fetchall()}


def _may_be_needed(name: str, *, now: datetime) -> bool:
    day = buckets.day_of(name)
    if day is not None:
        return day >= (now - MARGIN).date()
    hold = uuid.UUID(name.removeprefix("hold-"))
    if LegalHold.objects.filter(pk=hold).exists():
        return active_holds(now=now - MARGIN).filter(pk=hold).exists()
    # One that nobody knows is being placed at this moment; or it was then, and rolled back.
    return hold.version != UUID7 or hold >= entropy.first_uuid7(now - MARGIN)
