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

from .. import entropy
from ..audit.events import MAX_ITEMS, Act, Action, Origin
from ..audit.outbox import enqueue_many
from ..errors import HeldForLegalReasons
from ..subjects.models import PairwiseSubject
from .models import NO_SESSION, StoredClaim

BATCH = 10_000
"""Rows erased in one transaction."""


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
        return sum(
            scrub_subject(subject, cause="requested", origin=origin, now=now)
            for subject in PairwiseSubject.objects.filter(user=user.pk).order_by("pk")
        )


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
    work: on PostgreSQL each begins somewhere else and leaves alone what another one has in hand, on SQLite they wait
    for each other.
    """
    erased, last = _scrub_batch(after=None, until=now, now=now, batch=batch)
    if erased < batch or last is None:
        return erased
    somewhere = last + (now - last) * (int.from_bytes(entropy.token_bytes(4)) / 2**32)
    return erased + sum(
        _scrub_stretch(after, until, now=now, batch=batch) for after, until in ((somewhere, now), (last, somewhere))
    )


def _scrub_stretch(after: datetime, until: datetime, *, now: datetime, batch: int) -> int:
    """Erase what was due between the two; go on from where the last batch ended, and not through what is gone."""
    erased = 0
    last: datetime | None = after
    while last is not None:
        found, last = _scrub_batch(after=last, until=until, now=now, batch=batch)
        erased += found
    return erased


def _scrub_batch(*, after: datetime | None, until: datetime, now: datetime, batch: int) -> tuple[int, datetime | None]:
    """Return how many went, and when the last one was due; None when there is no more."""
    with transaction.atomic():
        counts, last = _delete_due(after=after, until=until, now=now, batch=batch)
        enqueue_many(_acts(counts, cause="due", subject="", origin=Origin(), now=now))
    return counts.total(), last if counts.total() == batch else None


def _delete_due(
    *, after: datetime | None, until: datetime, now: datetime, batch: int
) -> tuple[Counter[str], datetime | None]:
    """Delete at most batch due rows by one statement; return how many of each name, and when the last was due."""
    table = connection.ops.quote_name(StoredClaim._meta.db_table)
    is_postgresql = connection.vendor == "postgresql"
    row = "ctid" if is_postgresql else "id"
    due = (
        f"SELECT {row} FROM {table} WHERE expires_at <= %s{' AND expires_at >= %s' if after else ''}"  # noqa: S608
        " AND (held_until IS NULL OR held_until <= %s) ORDER BY expires_at LIMIT %s"
    )
    if is_postgresql:
        # A hold that comes meanwhile waits for the rows, or has them first: then they are looked at again.
        statement = (
            f"WITH gone AS (DELETE FROM {table} WHERE ctid = ANY(ARRAY({due} FOR UPDATE SKIP LOCKED))"  # noqa: S608
            " RETURNING name, expires_at) SELECT name, count(*), max(expires_at) FROM gone GROUP BY name"
        )
    else:
        statement = f"DELETE FROM {table} WHERE id IN ({due}) RETURNING name, 1, expires_at"  # noqa: S608
    moments = [connection.ops.adapt_datetimefield_value(each) for each in (until, after, now) if each]
    counts: Counter[str] = Counter()
    last = None
    with connection.cursor() as cursor:
        cursor.execute(statement, [*moments, batch])
        for name, count, due_at in cursor.fetchall():
            counts[name] += count
            last = due_at if last is None else max(last, due_at)
    # SQLite knows no time zones, and Django's are UTC there.
    return counts, last.replace(tzinfo=UTC) if last is not None and last.tzinfo is None else last


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
