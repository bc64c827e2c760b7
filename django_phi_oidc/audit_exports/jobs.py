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

from .._internal import randomness
from ..audit.events import Action, Origin
from ..audit.filters import EventFiltersForm
from ..audit.log import keys
from ..audit.log.findings import VerificationSummary
from ..audit.log.verifier import verify_log
from ..audit.recorder import record
from ..audit.search import RowUnreadable
from ..audit.storage import translate_database_errors
from ..errors import PhiOidcError
from .export import FILE_EXTENSIONS, export_events
from .models import TrailJob

LEASE_DURATION = timedelta(minutes=10)
"""Longer than a worker at work gives no sign of life."""
RETENTION_PERIOD = timedelta(days=1)
MAX_ATTEMPTS = 3
MAX_UNDOWNLOADED_EXPORTS = 5
_RETRY_DELAY = timedelta(seconds=30)
_MAX_FINDING_LINES = 20
_OPEN_STATES = (TrailJob.WAITING, TrailJob.RUNNING)
TrailJobQuerySet = QuerySet[TrailJob]


class _LeaseLost(Exception):
    """The job is another worker's by now, or nobody's: nothing more is written of it."""


def request_job(kind: str, *, asked_by: str, now: datetime, **fields: Any) -> TrailJob:
    """Return a new job; or the verification that is under way, for one is enough for all."""
    if kind == TrailJob.VERIFICATION and (
        under_way := TrailJob.objects.filter(kind=kind, state__in=_OPEN_STATES).first()
    ):
        return under_way
    return TrailJob.objects.create(
        **{"id": randomness.uuid7(now), **fields}, kind=kind, asked_by=asked_by, asked_at=now
    )


def has_too_many_exports(asked_by: str) -> bool:
    """Say whether this person has as many exports as may wait on the disk: they are to be taken first."""
    untaken = TrailJob.objects.filter(kind=TrailJob.EXPORT, asked_by=asked_by, state__in=(*_OPEN_STATES, TrailJob.DONE))
    return untaken.count() >= MAX_UNDOWNLOADED_EXPORTS


def run_next_job(*, clock: Callable[[], datetime], folder: Path | None, hostname: str) -> bool:
    """Do the job that has waited longest, and say whether there was one. folder, site: as `export` has them."""
    job = _acquire_next_job(clock())
    if job is None:
        return False

    def beat(done: int, total: int = 0) -> None:
        if not _leased_job(job).update(done=done, total=total, lease_until=clock() + LEASE_DURATION):
            raise _LeaseLost

    try:
        beat(0)
        result = (
            _run_verification(job, clock, beat)
            if job.kind == TrailJob.VERIFICATION
            else _run_export(job, folder, hostname, beat)
        )
    except _LeaseLost:
        return True
    except RowUnreadable:
        _leased_job(job).update(state=TrailJob.FAILED, fault="row_unreadable")
    except (PhiOidcError, ImproperlyConfigured, DatabaseError, OSError) as error:
        code = getattr(error, "code", type(error).__name__)
        _leased_job(job).update(state=TrailJob.WAITING, lease_until=clock() + _RETRY_DELAY, fault=code[:64])
    else:
        _leased_job(job).update(state=TrailJob.DONE, fault="", result=result)
    return True


def delete_expired_jobs(*, now: datetime, folder: Path | None) -> None:
    """Tell those failed that were begun too often, and delete what is a day old, with its files."""
    _available_jobs(now).filter(attempts__gte=MAX_ATTEMPTS).update(state=TrailJob.FAILED)
    for job in TrailJob.objects.filter(asked_at__lte=now - RETENTION_PERIOD)[:100]:
        for file in folder.glob(f"trail-{job.pk}.*") if folder else ():
            file.unlink(missing_ok=True)
        job.delete()


def open_export_file(job: TrailJob, *, folder: Path) -> BinaryIO:
    """Return the file of an export, open, once: nobody gets it again, and it has no name any more.

    Raises: LookupError where it is not done, was taken, or is not there.
    """
    job.refresh_from_db()
    path = _export_path(job, folder)
    try:
        file = path.open("rb")
    except OSError as error:
        raise LookupError from error
    if not TrailJob.objects.filter(pk=job.pk, state=TrailJob.DONE).update(state=TrailJob.TAKEN):
        file.close()
        raise LookupError
    path.unlink(missing_ok=True)
    return file


def _available_jobs(now: datetime) -> TrailJobQuerySet:
    """Return the jobs that are not done, and that no worker has."""
    return TrailJob.objects.filter(Q(lease_until=None) | Q(lease_until__lte=now), state__in=_OPEN_STATES)


def _leased_job(job: TrailJob) -> TrailJobQuerySet:
    return TrailJob.objects.filter(pk=job.pk, attempts=job.attempts, state=TrailJob.RUNNING)


def _acquire_next_job(now: datetime) -> TrailJob | None:
    begun = {"state": TrailJob.RUNNING, "attempts": F("attempts") + 1, "lease_until": now + LEASE_DURATION}
    for job in _available_jobs(now).filter(attempts__lt=MAX_ATTEMPTS).order_by("asked_at")[:10]:
        if _available_jobs(now).filter(pk=job.pk, attempts=job.attempts).update(**begun):
            job.attempts += 1
            return job
    return None


def _export_path(job: TrailJob, folder: Path) -> Path:
    """Return the file of this attempt: one that has lost its lease writes into no other's."""
    return folder / f"trail-{job.pk}.{job.attempts}.{FILE_EXTENSIONS[job.format]}"


def _run_export(
    job: TrailJob, folder: Path | None, hostname: str, report_progress: Callable[[int], None]
) -> dict[str, Any]:
    if folder is None:
        raise ImproperlyConfigured("PHI_OIDC['AUDIT']['exports'] is not declared here.")
    form, done = EventFiltersForm(job.filters), 0
    if not form.is_valid():
        raise RowUnreadable
    path = _export_path(job, folder)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        try:
            for count, lines in export_events(form.get_filters(), job.format, hostname=hostname):
                file.write(lines)
                done += count
                report_progress(done)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    return {"events": done}


def _run_verification(
    job: TrailJob, clock: Callable[[], datetime], report_progress: Callable[[int, int], None]
) -> dict[str, Any]:
    tally = VerificationSummary()
    lines: list[str] = []
    with translate_database_errors():
        for finding in verify_log(keys=keys.get_public_keys(), now=clock(), summary=tally, progress=report_progress):
            lines += [finding.render_line()] if len(lines) < _MAX_FINDING_LINES else []
    record(
        Action.AUDIT_VERIFIED,
        origin=Origin(actor=job.asked_by),
        now=clock(),
        outcome="failure" if tally.fault_count else "success",
        detail=tally.build_event_detail(),
    )
    return {**tally.build_event_detail(), "waiting": tally.waiting, "lines": lines}
