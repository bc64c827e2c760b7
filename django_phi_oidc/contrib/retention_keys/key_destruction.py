"""Destroy the retention keys that no claim uses or will use.

Without one of its keys, a claim in a backup cannot be decrypted. The key of a day is destroyed when
no claim of that day is left, the key of a person when all claims of the person are erased.
"""

import logging
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.db.models import Q

from ...audit.events import Action, NewEvent, Origin
from ...audit.outbox import enqueue_many
from ...audit.recorder import is_recorded, record_many
from ...claims.models import StoredClaim
from ...errors import Code, KeyMissing
from ...extensions import retention_guards
from .key_names import parse_key_date
from .key_store import RetentionKeyStore, get_store
from .models import UnusedPersonKey

logger = logging.getLogger(__name__)
PERSON_KEY_BATCH_SIZE = 100
"""Keys of persons destroyed in one run."""
DESTRUCTION_MARGIN = timedelta(hours=1)
"""After the end of a day or of a hold. Claims obtained before that end are committed by then, by
any server's clock.
"""


def count_unused_keys(*, now: datetime, due: Q) -> int:
    """Return how many keys `destroy_unused_keys` would destroy after the erasure of the claims that
    meet the condition.

    Raises: KeyMissing.
    """
    in_use = set(StoredClaim.objects.exclude(due).values_list("bucket", flat=True).distinct())
    names = []
    for name in get_store().names():
        if name not in in_use:
            names.append(name)
    count = 0
    for name in names:
        if not _can_be_in_use(name, now=now):
            count += 1
    return count + UnusedPersonKey.objects.count()


def destroy_unused_keys(*, now: datetime) -> list[str]:
    """Destroy the retention keys that no claim uses or will use; return their names: days, holds,
    erased persons.

    `retention.key_unused` is committed before a key is destroyed, and the result in
    `retention.key_destroyed` after it. A key that can't be destroyed does not prevent the
    destruction of the others. Each run tries it again, and once an hour its events and an alert are
    written.
    Raises: AuditUnavailable; KeyMissing, after the other keys were destroyed.
    """
    store = get_store()
    destroyed = list[str]()
    count = 0
    for unused in _iter_unused_keys(store, now=now):
        destroyed += _destroy_keys(store, unused, now=now)
        count += len(unused)
    kept = count - len(destroyed)
    if kept:
        raise KeyMissing(f"{kept} of {count} unused retention keys can't be destroyed.")
    return destroyed


def list_keys_in_use() -> set[str]:
    """Return the names of the keys that encrypt claims. One statement, with one index lookup for
    each name.
    """
    table = connection.ops.quote_name(StoredClaim._meta.db_table)
    least = f"SELECT min(bucket) FROM {table} WHERE bucket <> ''"  # noqa: S608 -- the model's name
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH RECURSIVE used(name) AS (SELECT ({least}) UNION ALL"  # noqa: S608
            f" SELECT ({least} AND bucket > used.name) FROM used WHERE used.name IS NOT NULL)"
            " SELECT name FROM used WHERE name IS NOT NULL"
        )
        return {name for (name,) in cursor.fetchall()}


def _destroy_keys(
    store: RetentionKeyStore,
    unused: Mapping[str, UnusedPersonKey | None],
    *,
    now: datetime,
) -> list[str]:
    """Destroy these keys, with their events, and return the names of those that are gone. Raises:
    AuditUnavailable.
    """
    new = []
    for name in unused:
        if not is_recorded(Action.RETENTION_KEY_UNUSED, "bucket", name, now=now):
            new.append(name)

    announcements = []
    for name in new:
        announcements.append(
            _create_key_event(Action.RETENTION_KEY_UNUSED, name, unused[name], now=now)
        )
    record_many(announcements)

    events: list[NewEvent] = []
    destroyed = []
    try:
        for name, person_key in unused.items():
            event = _create_key_event(Action.RETENTION_KEY_DESTROYED, name, person_key, now=now)
            if _destroy_key(store, name):
                destroyed.append(name)
                events.append(event)
            elif name in new:
                alert = NewEvent(
                    Action.ALERT_RAISED, Origin(), now, detail={"rule": "retention_key_kept"}
                )
                for item in (event, alert):
                    events.append(item._replace(outcome="failure", reason=Code.KEY_MISSING))
    finally:
        with transaction.atomic():
            person_key_ids = []
            for name in destroyed:
                person_key = unused[name]
                if person_key:
                    person_key_ids.append(person_key.pk)
            UnusedPersonKey.objects.filter(pk__in=person_key_ids).delete()
            enqueue_many(events)
    return destroyed


def _iter_unused_keys(
    store: RetentionKeyStore, *, now: datetime
) -> Iterator[dict[str, UnusedPersonKey | None]]:
    """Yield the names of the unused keys: those of days and holds, then batches of erased persons,
    with their rows.
    """
    names = list(store.names())
    names_in_use: Collection[str]
    if names:
        names_in_use = list_keys_in_use()
    else:
        names_in_use = ()

    unused = []
    for name in names:
        if name not in names_in_use and not _can_be_in_use(name, now=now):
            unused.append(name)
    if unused:
        yield dict.fromkeys(unused)
    # The store is not asked for the keys of persons: it may have millions of them.
    rows = UnusedPersonKey.objects.order_by("pk")
    batch = list(rows[:PERSON_KEY_BATCH_SIZE])
    while batch:
        yield {str(person_key): person_key for person_key in batch}
        # By primary key and not from the start: keys that can't be destroyed stay, and must not
        # block the others.
        batch = list(rows.filter(pk__gt=batch[-1].pk)[:PERSON_KEY_BATCH_SIZE])


def _create_key_event(
    action: Action, name: str, person_key: UnusedPersonKey | None, *, now: datetime
) -> NewEvent:
    if person_key:
        subject = str(person_key.subject_uuid)
    else:
        subject = ""
    return NewEvent(action, Origin(), now, subject=subject, detail={"bucket": name})


def _destroy_key(store: RetentionKeyStore, name: str) -> bool:
    """Destroy the key, and return whether it is gone."""
    try:
        store.destroy(name)
        return store.get(name) is None
    except KeyMissing as error:
        logger.error("The retention key %s can't be destroyed: %s", name, error)  # noqa: TRY400 -- the traceback may contain credentials of a key service
        return False


def _can_be_in_use(key_name: str, *, now: datetime) -> bool:
    day = parse_key_date(key_name)
    if day is not None:
        return day >= (now - DESTRUCTION_MARGIN).date()
    # Only a guard knows its holds. A process without the app must not destroy the key of a hold
    # that another process is just placing.
    if not retention_guards:
        return True
    return any(
        guard.may_need_key(key_name, now=now - DESTRUCTION_MARGIN) for guard in retention_guards
    )
