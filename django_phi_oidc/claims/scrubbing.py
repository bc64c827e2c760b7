"""Erase claims at their end: with the session, when due, or at once. An erased value is not found in its event."""

import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import connection, transaction
from django.db.models import OuterRef, Q, Subquery

from ..audit.events import MAX_ITEMS, Act, Action, Origin
from ..audit.outbox import enqueue_many, moving_together
from ..errors import HeldForLegalReasons
from ..subjects.models import PairwiseSubject
from .models import NO_SESSION, StoredClaim

BATCH = 10_000
"""Rows erased in one transaction."""
SCRUB_LOCK = 0x7068695F73637275
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
    rows, held = _parted(
        found.annotate(of=Subquery(subject)).values_list("held_until", "session", "pk", "name", "of"), now=now
    )
    _let_lapse(held, now=now)
    if not rows:
        return 0
    StoredClaim.objects.filter(pk__in=[pk for _, pk, _, _ in rows]).delete()
    acts: list[Act] = []
    for session, group in groupby(sorted(rows), key=itemgetter(0)):
        erased = list(group)
        names, of = [name for *_, name, _ in erased], str(erased[0][3])
        acts += _acts(names, cause="session_ended", subject=of, origin=origin._replace(session=str(session)), now=now)
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
    rows, held = _of_subject(subject, now=now)
    if held:
        raise HeldForLegalReasons
    return _erase(rows, cause=cause, subject=str(subject.uuid), origin=origin, now=now)


def scrub_inactive(users: Collection[Any], *, origin: Origin, now: datetime) -> int:
    """Erase all claims of accounts that are deactivated, inside the caller's transaction; return how many there were.

    What a legal hold keeps has its time over instead, and goes when the hold does.
    """
    erased = 0
    for subject in PairwiseSubject.objects.filter(user__in=users).order_by("pk"):
        rows, held = _of_subject(subject, now=now)
        _let_lapse(held, now=now)
        erased += _erase(rows, cause="user_inactive", subject=str(subject.uuid), origin=origin, now=now)
    return erased


def scrub_due(*, now: datetime, batch: int = BATCH) -> int:
    """Erase the claims whose time is over, but those that a legal hold keeps; return how many this run erased.

    Each batch and its event is one transaction: killed at any point, nothing is half done. Several workers share the
    work: on PostgreSQL they come from both ends and leave alone what another one has in hand, on SQLite they wait for
    each other.
    """
    erased = 0
    with moving_together():
        found, last, newest_first = _scrub_batch(after=None, newest_first=None, now=now, batch=batch)
        erased += found
        while last is not None:
            # On from where the last batch ended, and not through what is gone.
            found, last, _ = _scrub_batch(after=last, newest_first=newest_first, now=now, batch=batch)
            erased += found
    return erased


def _scrub_batch(
    *, after: datetime | None, newest_first: bool | None, now: datetime, batch: int
) -> tuple[int, datetime | None, bool]:
    """Return how many went, when the last one was due, None when there is no more, and from which end it was."""
    with transaction.atomic():
        if newest_first is None:
            newest_first = not _is_alone()
        counts, last = _delete_due(after=after, newest_first=newest_first, now=now, batch=batch)
        enqueue_many(_acts(counts, cause="due", subject="", origin=Origin(), now=now))
    return counts.total(), last if counts.total() == batch else None, newest_first


def _is_alone() -> bool:
    """Say whether nobody else is at a first batch; until the transaction ends, others are told that somebody is."""
    if connection.vendor != "postgresql":
        return True
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [SCRUB_LOCK])
        return bool(cursor.fetchone()[0])


def _delete_due(
    *, after: datetime | None, newest_first: bool, now: datetime, batch: int
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
        cursor.execute(statement, [*moments, batch])
        for name, count, due_at in cursor.fetchall():
            counts[name] += count
            # SQLite knows no time zones, and Django's are UTC there.
            edges.append(due_at if due_at.tzinfo else due_at.replace(tzinfo=UTC))
    return counts, (min if newest_first else max)(edges, default=None)


def _of_subject(subject: PairwiseSubject, *, now: datetime) -> tuple[dict[int, str], list[int]]:
    """Return the rows of a subject, locked: those that may go, with their names, and keys of those that are held."""
    claims = StoredClaim.objects.filter(subject=subject.pk).order_by("pk").select_for_update()
    rows, held = _parted(claims.values_list("held_until", "session", "pk", "name", "subject"), now=now)
    return {pk: name for _, pk, name, _ in rows}, held


def _parted(found: Iterable[Any], *, now: datetime) -> tuple[list[tuple[Any, ...]], list[int]]:
    """Return what follows held_until in each row that nothing keeps, and the keys of the others."""
    rows, held = [], []
    for until, *row in found:
        if until is None or until <= now:
            rows.append(tuple(row))
        else:
            held.append(row[1])
    return rows, held


def _let_lapse(held: Sequence[int], *, now: datetime) -> None:
    """Have the time of these rows be over: whoever looks finds them gone, and `scrub_due` once no hold keeps them."""
    if held:
        StoredClaim.objects.filter(Q(expires_at=None) | Q(expires_at__gt=now), pk__in=held).update(expires_at=now)


def _erase(names: Mapping[int, str], *, cause: str, subject: str, origin: Origin, now: datetime) -> int:
    """Delete the rows with those keys and tell of it in the same transaction: how many of each name."""
    if not names:
        return 0
    StoredClaim.objects.filter(pk__in=names).delete()
    enqueue_many(_acts(names.values(), cause=cause, subject=subject, origin=origin, now=now))
    return len(names)


def _acts(names: Iterable[str] | Counter[str], *, cause: str, subject: str, origin: Origin, now: datetime) -> list[Act]:
    counts = sorted(Counter(names).items())
    return [
        Act(
            action=Action.CLAIM_SCRUBBED,
            origin=origin,
            now=now,
            subject=subject,
            detail={"cause": cause, "claims": [name for name, _ in some], "counts": [count for _, count in some]},
        )
        for some in (counts[start : start + MAX_ITEMS] for start in range(0, len(counts), MAX_ITEMS))
    ]
