"""Erase claims at their end: with the session, when due, or at once. An erased value is not found in its event.

Retention keys go when no claim needs them: what a backup still holds under them can't be read by anybody then.
"""

import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import connection, transaction
from django.db.models import OuterRef, Q, Subquery

from .._internal import randomness
from ..audit.events import MAX_ITEMS, Action, NewEvent, Origin
from ..audit.outbox import batch_delivery, enqueue_many
from ..audit.recorder import record
from ..crypto import retention_keys
from ..errors import HeldForLegalReasons
from ..subjects.models import PairwiseSubject
from .legal_holds import list_active_holds
from .models import NO_SESSION, LegalHold, StoredClaim

SCRUB_BATCH_SIZE = 10_000
"""Rows erased in one transaction."""
SCRUB_LOCK_ID = 0x7068695F73637275
"""Advisory: somebody begins to erase what is due."""


def scrub_sessions(session_ids: Collection[uuid.UUID], *, origin: Origin, now: datetime) -> int:
    """Erase the claims of sessions inside the caller's transaction; return how many there were.

    What a legal hold keeps has its time over instead, and goes when the hold does.
    Requires: the caller holds the sessions, so that nobody stores into them meanwhile.
    """
    if NO_SESSION in session_ids:
        raise ValueError("NO_SESSION is no session: its claims outlive them all.")
    # No join: that would lock the subject, too, for which a sign-in of the same person waits.
    subject = PairwiseSubject.objects.filter(pk=OuterRef("subject")).values("uuid")
    # Locked in the order in which all lock them, or two could wait for each other.
    found = StoredClaim.objects.filter(session__in=session_ids).order_by("pk").select_for_update()
    rows, held = _split_by_hold(
        found.annotate(of=Subquery(subject)).values_list("held_until", "session", "pk", "name", "of"), now=now
    )
    _mark_expired(held, now=now)
    if not rows:
        return 0
    StoredClaim.objects.filter(pk__in=[pk for _, pk, _, _ in rows]).delete()
    acts: list[NewEvent] = []
    for session, group in groupby(sorted(rows), key=itemgetter(0)):
        erased = list(group)
        names, of = [name for *_, name, _ in erased], str(erased[0][3])
        acts += _create_scrub_events(
            names, cause="session_ended", subject=of, origin=origin._replace(session=str(session)), now=now
        )
    enqueue_many(acts)
    return len(rows)


def scrub_user(user: AbstractBaseUser, *, origin: Origin, now: datetime) -> int:
    """Erase all claims of a person at once, those of live sessions included; return how many there were.

    Raises: HeldForLegalReasons, and then nothing was erased.
    """
    with transaction.atomic():
        # Held before the claims, as a sign-in does: it locks them in another order, by name.
        subjects = PairwiseSubject.objects.filter(user=user.pk).order_by("pk").select_for_update(no_key=True)
        return sum(scrub_subject(subject, cause="requested", origin=origin, now=now) for subject in subjects)


def scrub_subject(subject: PairwiseSubject, *, cause: str, origin: Origin, now: datetime) -> int:
    """Erase all claims of a subject inside the caller's transaction; return how many there were.

    Raises: HeldForLegalReasons.
    """
    rows, held = _lock_subject_claims(subject, now=now)
    if held:
        raise HeldForLegalReasons
    return _delete_claims(rows, cause=cause, subject=str(subject.uuid), origin=origin, now=now)


def scrub_inactive_users(users: Collection[Any], *, origin: Origin, now: datetime) -> int:
    """Erase all claims of accounts that are deactivated, inside the caller's transaction; return how many there were.

    What a legal hold keeps has its time over instead, and goes when the hold does.
    """
    erased = 0
    for subject in PairwiseSubject.objects.filter(user__in=users).order_by("pk"):
        rows, held = _lock_subject_claims(subject, now=now)
        _mark_expired(held, now=now)
        erased += _delete_claims(rows, cause="user_inactive", subject=str(subject.uuid), origin=origin, now=now)
    return erased


def scrub_due_claims(*, now: datetime, batch_size: int = SCRUB_BATCH_SIZE) -> int:
    """Erase the claims whose time is over, but those that a legal hold keeps; return how many this run erased.

    Each batch and its event is one transaction: killed at any point, nothing is half done. Several workers share the
    work: on PostgreSQL they come from both ends and leave alone what another one has in hand, on SQLite they wait for
    each other.
    """
    erased = 0
    with batch_delivery():
        found, last, newest_first = _scrub_batch(after=None, newest_first=None, now=now, batch_size=batch_size)
        erased += found
        while last is not None:
            # On from where the last batch ended, and not through what is gone.
            found, last, _ = _scrub_batch(after=last, newest_first=newest_first, now=now, batch_size=batch_size)
            erased += found
    return erased


def _scrub_batch(
    *, after: datetime | None, newest_first: bool | None, now: datetime, batch_size: int
) -> tuple[int, datetime | None, bool]:
    """Return how many went, when the last one was due, None when there is no more, and from which end it was."""
    with transaction.atomic():
        if newest_first is None:
            newest_first = not _acquire_scrub_lock()
        counts, last = _delete_due_claims(after=after, newest_first=newest_first, now=now, batch_size=batch_size)
        enqueue_many(_create_scrub_events(counts, cause="due", subject="", origin=Origin(), now=now))
    return counts.total(), last if counts.total() == batch_size else None, newest_first


def _acquire_scrub_lock() -> bool:
    """Say whether nobody else is at a first batch; until the transaction ends, others are told that somebody is."""
    if connection.vendor != "postgresql":
        return True
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [SCRUB_LOCK_ID])
        return bool(cursor.fetchone()[0])


def _delete_due_claims(
    *, after: datetime | None, newest_first: bool, now: datetime, batch_size: int
) -> tuple[Counter[str], datetime | None]:
    """Delete at most batch due rows by one statement; return how many of each name, and when the last was due."""
    table = connection.ops.quote_name(StoredClaim._meta.db_table)
    is_postgresql = connection.vendor == "postgresql"
    order, edge, on = ("DESC", "min", "<=") if newest_first else ("ASC", "max", ">=")
    due = (
        f"SELECT {'ctid' if is_postgresql else 'id'} FROM {table} WHERE expires_at <= %s"  # noqa: S608
        f"{f' AND expires_at {on} %s' if after else ''} AND (held_until IS NULL OR held_until <= %s)"
        f" ORDER BY expires_at {order} LIMIT %s"
    )
    if is_postgresql:
        # A hold that comes meanwhile waits for the rows, or has them first: then they are looked at again.
        statement = (
            f"WITH gone AS (DELETE FROM {table} WHERE ctid = ANY(ARRAY({due} FOR UPDATE SKIP LOCKED))"  # noqa: S608
            f" RETURNING name, expires_at) SELECT name, count(*), {edge}(expires_at) FROM gone GROUP BY name"
        )
    else:
        statement = f"DELETE FROM {table} WHERE id IN ({due}) RETURNING name, 1, expires_at"  # noqa: S608
    moments = [connection.ops.adapt_datetimefield_value(each) for each in (now, after, now) if each]
    counts: Counter[str] = Counter()
    edges = []
    with connection.cursor() as cursor:
        cursor.execute(statement, [*moments, batch_size])
        for name, count, due_at in cursor.fetchall():
            counts[name] += count
            # SQLite knows no time zones, and Django's are UTC there.
            edges.append(due_at if due_at.tzinfo else due_at.replace(tzinfo=UTC))
    return counts, (min if newest_first else max)(edges, default=None)


def _lock_subject_claims(subject: PairwiseSubject, *, now: datetime) -> tuple[dict[int, str], list[int]]:
    """Return the rows of a subject, locked: those that may go, with their names, and keys of those that are held."""
    claims = StoredClaim.objects.filter(subject=subject.pk).order_by("pk").select_for_update()
    rows, held = _split_by_hold(claims.values_list("held_until", "session", "pk", "name", "subject"), now=now)
    return {pk: name for _, pk, name, _ in rows}, held


def _split_by_hold(claim_rows: Iterable[Any], *, now: datetime) -> tuple[list[tuple[Any, ...]], list[int]]:
    """Return what follows held_until in each row that nothing keeps, and the keys of the others."""
    rows, held = [], []
    for until, *row in claim_rows:
        if until is None or until <= now:
            rows.append(tuple(row))
        else:
            held.append(row[1])
    return rows, held


def _mark_expired(claim_ids: Sequence[int], *, now: datetime) -> None:
    """Have the time of these rows be over: whoever looks finds them gone, and `scrub_due` once no hold keeps them."""
    if claim_ids:
        StoredClaim.objects.filter(Q(expires_at=None) | Q(expires_at__gt=now), pk__in=claim_ids).update(expires_at=now)


def _delete_claims(names_by_id: Mapping[int, str], *, cause: str, subject: str, origin: Origin, now: datetime) -> int:
    """Delete the rows with those keys and tell of it in the same transaction: how many of each name."""
    if not names_by_id:
        return 0
    StoredClaim.objects.filter(pk__in=names_by_id).delete()
    enqueue_many(_create_scrub_events(names_by_id.values(), cause=cause, subject=subject, origin=origin, now=now))
    return len(names_by_id)


def _create_scrub_events(
    names: Iterable[str] | Counter[str], *, cause: str, subject: str, origin: Origin, now: datetime
) -> list[NewEvent]:
    counts = sorted(Counter(names).items())
    return [
        NewEvent(
            action=Action.CLAIM_SCRUBBED,
            origin=origin,
            now=now,
            subject=subject,
            detail={"cause": cause, "claims": [name for name, _ in some], "counts": [count for _, count in some]},
        )
        for some in (counts[start : start + MAX_ITEMS] for start in range(0, len(counts), MAX_ITEMS))
    ]


DESTRUCTION_MARGIN = timedelta(hours=1)
"""After the end of a day or of a hold: what was obtained before it is committed by then, by any server's clock."""

UUID7_VERSION = 7
"""The version of a hold's id, which tells when it was placed. Spec: RFC 9562 5.7."""


def destroy_unused_keys(*, now: datetime) -> list[str]:
    """Destroy the retention keys that no claim bears, and none will; return their names. Each is an event before it is.

    Raises: KeyMissing, AuditUnavailable: what is left is for the next run.
    """
    if not retention_keys.is_enabled():
        return []
    store = retention_keys.get_store()
    names = list(store.names())
    borne, destroyed = _list_keys_in_use() if names else (), []
    for name in names:
        if name in borne or _can_be_in_use(name, now=now):
            continue
        record(Action.RETENTION_KEY_DESTROYED, origin=Origin(), now=now, detail={"bucket": name})
        store.destroy(name)
        destroyed.append(name)
    return destroyed


def _list_keys_in_use() -> set[str]:
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


def _can_be_in_use(key_name: str, *, now: datetime) -> bool:
    day = retention_keys.parse_key_date(key_name)
    if day is not None:
        return day >= (now - DESTRUCTION_MARGIN).date()
    hold = uuid.UUID(key_name.removeprefix("hold-"))
    if LegalHold.objects.filter(pk=hold).exists():
        return list_active_holds(now=now - DESTRUCTION_MARGIN).filter(pk=hold).exists()
    # One that nobody knows is being placed at this moment; or it was then, and rolled back.
    return hold.version != UUID7_VERSION or hold >= randomness.lowest_uuid7(now - DESTRUCTION_MARGIN)
