"""Erase claims at their end: with the session, when due, or at once. An erased value is not found in its event."""

import uuid
from collections import Counter
from collections.abc import Mapping
from datetime import datetime

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction

from ..audit.events import MAX_ITEMS, Action, Origin
from ..audit.outbox import enqueue
from ..subjects.models import PairwiseSubject
from .models import NO_SESSION, StoredClaim

BATCH = 10_000
"""Rows erased in one transaction."""


def scrub_session(session_id: uuid.UUID, *, origin: Origin, now: datetime) -> int:
    """Erase the claims of a session inside the caller's transaction; return how many there were.

    Requires: the caller holds the session, so that nobody stores into it meanwhile.
    """
    if session_id == NO_SESSION:
        raise ValueError("NO_SESSION is no session: its claims outlive them all.")
    found = StoredClaim.objects.filter(session=session_id).order_by("pk").values_list("pk", "name", "subject__uuid")
    rows = list(found)
    subject = str(rows[0][2]) if rows else ""
    return _erase({pk: name for pk, name, _ in rows}, cause="session_ended", subject=subject, origin=origin, now=now)


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
    counts = sorted(Counter(names.values()).items())
    for some in (counts[start : start + MAX_ITEMS] for start in range(0, len(counts), MAX_ITEMS)):
        enqueue(
            Action.CLAIM_SCRUBBED,
            origin=origin,
            now=now,
            subject=subject,
            detail={"cause": cause, "claims": [name for name, _ in some], "counts": [count for _, count in some]},
        )
    return len(names)
