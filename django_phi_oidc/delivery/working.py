"""Long work on the trail, by a worker: exports of many events, and verifications. Whoever asked sees how far it is.

A job is a row under a lease. A worker that is killed leaves it behind, and after the lease the next one begins anew;
after three attempts it has failed. A day after it was asked for, the row and its file are gone.
"""

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError
from django.db.models import F, Q, QuerySet

from .. import entropy
from ..audit import signing
from ..audit.asking import FiltersForm
from ..audit.browsing import RowUnreadable
from ..audit.events import Action, Origin
from ..audit.findings import Tally
from ..audit.recording import record
from ..audit.verifying import verify
from ..audit.writing import reaching_the_trail
from ..errors import PhiOidcError
from .exporting import ENDINGS, export
from .models import TrailJob

LEASE = timedelta(minutes=10)
"""Longer than a worker at work gives no sign of life."""
KEPT_FOR = timedelta(days=1)
MOST_ATTEMPTS = 3
MOST_UNTAKEN = 5
_RETRY = timedelta(seconds=30)
_MOST_NAMED = 20
_OPEN = (TrailJob.WAITING, TrailJob.RUNNING)
Jobs = QuerySet[TrailJob]


class _LeaseLost(Exception):
    """The job is another worker's by now, or nobody's: nothing more is written of it."""


def ask(kind: str, *, asked_by: str, now: datetime, **asked: Any) -> TrailJob:
    """Return a new job; or the verification that is under way, for one is enough for all."""
    if kind == TrailJob.VERIFICATION and (under_way := TrailJob.objects.filter(kind=kind, state__in=_OPEN).first()):
        return under_way
    return TrailJob.objects.create(**{"id": entropy.uuid7(now), **asked}, kind=kind, asked_by=asked_by, asked_at=now)


def has_too_many(asked_by: str) -> bool:
    """Say whether this person has as many exports as may wait on the disk: they are to be taken first."""
    untaken = TrailJob.objects.filter(kind=TrailJob.EXPORT, asked_by=asked_by, state__in=(*_OPEN, TrailJob.DONE))
    return untaken.count() >= MOST_UNTAKEN


def work_next(*, clock: Callable[[], datetime], folder: Path | None, site: str) -> bool:
    """Do the job that has waited longest, and say whether there was one. folder, site: as `export` has them."""
    job = _take(clock())
    if job is None:
        return False

    def beat(done: int, total: int = 0) -> None:
        if not _mine(job).update(done=done, total=total, lease_until=clock() + LEASE):
            raise _LeaseLost

    try:
        beat(0)
        result = _verify(job, clock, beat) if job.kind == TrailJob.VERIFICATION else _export(job, folder, site, beat)
    except _LeaseLost:
        return True
    except RowUnreadable:
        _mine(job).update(state=TrailJob.FAILED, fault="row_unreadable")
    except (PhiOidcError, ImproperlyConfigured, DatabaseError, OSError) as error:
        code = getattr(error, "code", type(error).__name__)
        _mine(job).update(state=TrailJob.WAITING, lease_until=clock() + _RETRY, fault=code[:64])
    else:
        _mine(job).update(state=TrailJob.DONE, fault="", result=result)
    return True


def prune(*, now: datetime, folder: Path | None) -> None:
    """Tell those failed that were begun too often, and delete what is a day old, with its files."""
    _free(now).filter(attempts__gte=MOST_ATTEMPTS).update(state=TrailJob.FAILED)
    for job in TrailJob.objects.filter(asked_at__lte=now - KEPT_FOR)[:100]:
        for file in folder.glob(f"trail-{job.pk}.*") if folder else ():
            file.unlink(missing_ok=True)
        job.delete()


def take_file(job: TrailJob, *, folder: Path) -> BinaryIO:
    """Return the file of an export, open, once: nobody gets it again, and it has no name any more.

    Raises: LookupError where it is not done, was taken, or is not there.
    """
    job.refresh_from_db()
    path = _file_of(job, folder)
    try:
        file = path.open("rb")
    except OSError as error:
        raise LookupError from error
    if not TrailJob.objects.filter(pk=job.pk, state=TrailJob.DONE).update(state=TrailJob.TAKEN):
        file.close()
        raise LookupError
    path.unlink(missing_ok=True)
    return file


def _free(now: datetime) -> Jobs:
    """Return the jobs that are not done, and that no worker has."""
    return TrailJob.objects.filter(Q(lease_until=None) | Q(lease_until__lte=now), state__in=_OPEN)


def _mine(job: TrailJob) -> Jobs:
    return TrailJob.objects.filter(pk=job.pk, attempts=job.attempts, state=TrailJob.RUNNING)


def _take(now: datetime) -> TrailJob | None:
    begun = {"state": TrailJob.RUNNING, "attempts": F("attempts") + 1, "lease_until": now + LEASE}
    for job in _free(now).filter(attempts__lt=MOST_ATTEMPTS).order_by("asked_at")[:10]:
        if _free(now).filter(pk=job.pk, attempts=job.attempts).update(**begun):
            job.attempts += 1
            return job
    return None


def _file_of(job: TrailJob, folder: Path) -> Path:
    """Return the file of this attempt: one that has lost its lease writes into no other's."""
    return folder / f"trail-{job.pk}.{job.attempts}.{ENDINGS[job.format]}"


def _export(job: TrailJob, folder: Path | None, site: str, beat: Callable[[int], None]) -> dict[str, Any]:
    if folder is None:
        raise ImproperlyConfigured("PHI_OIDC['EXPORT_FOLDER'] is not declared here.")
    form, done = FiltersForm(job.filters), 0
    if not form.is_valid():
        raise RowUnreadable
    path = _file_of(job, folder)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        try:
            for count, lines in export(form.filters(), job.format, site=site):
                file.write(lines)
                done += count
                beat(done)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    return {"events": done}


def _verify(job: TrailJob, clock: Callable[[], datetime], beat: Callable[[int, int], None]) -> dict[str, Any]:
    tally = Tally()
    lines: list[str] = []
    with reaching_the_trail():
        for finding in verify(keys=signing.public_keys(), now=clock(), tally=tally, progress=beat):
            lines += [finding.line()] if len(lines) < _MOST_NAMED else []
    record(
        Action.AUDIT_VERIFIED,
        origin=Origin(actor=job.asked_by),
        now=clock(),
        outcome="failure" if tally.faults else "success",
        detail=tally.detail(),
    )
    return {**tally.detail(), "waiting": tally.waiting, "lines": lines}
