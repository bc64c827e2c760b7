"""Erase claims at their end: with the session, when due, or at once. An erased value is not found in its event."""

import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from itertools import groupby
from operator import itemgetter

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction

from ..audit.events import MAX_ITEMS, Act, Action, Origin
from ..audit.outbox import enqueue_many
from ..subjects.models import PairwiseSubject
from .models import NO_SESSION, StoredClaim

BATCH = 10_000
"""Rows erased in one transaction."""


def scrub_sessions(session_ids: Collection[uuid.UUID], *, origin: Origin, now: datetime) -> int:
    """Erase the claims of sessions inside the caller's transaction; return how many there were.

    Requires: the caller holds the sessions, so that nobody stores into them meanwhile.
    """
    if NO_SESSION in session_ids:
        raise ValueError("NO_SESSION is no session: its claims outlive them all.")
    found = StoredClaim.objects.filter(session__in=session_ids).order_by("session", "pk")
    rows = list(found.values_list("session", "pk", "name", "subject__uuid"))
    if not rows:
        return 0
    StoredClaim.objects.filter(pk__in=[pk for _, pk, _, _ in rows]).delete()
    acts: list[Act] = []
    for session, group in groupby(rows, key=itemgetter(0)):
        held = list(group)
        names, subject = [name for *_, name, _ in held], str(held[0][3])
        acts += _acts(
            names, cause="session_ended", subject=subject, origin=origin._replace(session=str(session)), now=now
        )
    enqueue_many(acts)
    return len(rows)


def scrub_user(user: AbstractBaseUser, *, origin: Origin, now: datetime) -> int:
    """Erase all claims of a person at once, those of live sessions included; return how many there were."""
    with transaction.atomic():
        return sum(
            scrub_subject(subject, cause="requested", origin=origin, now=now)
            for subject in PairwiseSubject.objects.filter(user=user.pk).order_by("pk")
        )


def scrub_subject(subject: PairwiseSubject, *, cause: str, origin: Origin, now: datetime) -> int:
    """Erase all claims of a subject inside the caller's transaction; return how many there were."""
    held = StoredClaim.objects.filter(subject=subject.pk).order_by("pk").select_for_update()
    names = dict(held.values_list("pk", "name"))
    return _erase(names, cause=cause, subject=str(subject.uuid), origin=origin, now=now)


def scrub_due(*, now: datetime, batch: int = BATCH) -> int:
    """Erase the claims whose time is over; return how many this run erased.

    Each batch and its event is one transaction: killed at any point, nothing is half done. Several workers share the
    work: on PostgreSQL each skips the rows that another one holds, on SQLite they wait for each other.
    """
    erased = 0
    while found := _scrub_batch(now=now, batch=batch):
        erased += found
    return erased


def _scrub_batch(*, now: datetime, batch: int) -> int:
    with transaction.atomic():
        due = StoredClaim.objects.filter(expires_at__lte=now).order_by("expires_at").select_for_update(skip_locked=True)
        return _erase(dict(due.values_list("pk", "name")[:batch]), cause="due", subject="", origin=Origin(), now=now)


def _erase(names: Mapping[int, str], *, cause: str, subject: str, origin: Origin, now: datetime) -> int:
    """Delete the rows with those keys and tell of it in the same transaction: how many of each name."""
    if not names:
        return 0
    StoredClaim.objects.filter(pk__in=names).delete()
    enqueue_many(_acts(names.values(), cause=cause, subject=subject, origin=origin, now=now))
    return len(names)


def _acts(names: Iterable[str], *, cause: str, subject: str, origin: Origin, now: datetime) -> list[Act]:
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
