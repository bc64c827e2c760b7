"""Jobs for a worker: exports of many events, and verifications of the whole audit log.

A job is a leased row. When a worker is killed, the next one starts again after the lease; after
three attempts the job has failed. The row and its file are deleted a day after the request.
"""

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError
from django.db.models import F, QuerySet

from ..._internal import randomness
from ..._internal.lease import LeasedQuerySet
from ...audit.events import Action, EventOutcome, Origin
from ...audit.filters import EventFiltersForm
from ...audit.log.findings import VerificationSummary
from ...audit.log.signing_keys import get_public_keys
from ...audit.log.verifier import verify_log
from ...audit.recorder import record
from ...audit.search import RowUnreadable
from ...audit.storage import translate_database_errors
from ...errors import PhiOidcError
from .event_export import FILE_EXTENSIONS, export_events
from .models import TrailJob

LEASE_DURATION = timedelta(minutes=10)
"""Longer than the time between two progress reports of a worker."""
RETENTION_PERIOD = timedelta(days=1)
MAX_ATTEMPTS = 3
MAX_UNDOWNLOADED_EXPORTS = 5
_RETRY_DELAY = timedelta(seconds=30)
_MAX_FINDING_LINES = 20
_OPEN_STATES = (TrailJob.WAITING, TrailJob.RUNNING)
TrailJobQuerySet = LeasedQuerySet[TrailJob]


class _LeaseLost(Exception):
    """Another worker has the job, or it was deleted: write nothing more."""


def request_job(kind: str, *, asked_by: str, now: datetime, **fields: Any) -> TrailJob:
    """Return a new job, or the verification that is already open, because one serves all users."""
    open_jobs = TrailJob.objects.filter(kind=kind, state__in=_OPEN_STATES)
    if kind == TrailJob.VERIFICATION and (job := open_jobs.first()):
        return job
    fields.setdefault("id", randomness.uuid7(now))
    return TrailJob.objects.create(kind=kind, asked_by=asked_by, asked_at=now, **fields)


def has_too_many_exports(asked_by: str) -> bool:
    """Return True if this user has the maximum of exports that were not downloaded yet."""
    states = (*_OPEN_STATES, TrailJob.DONE)
    exports = TrailJob.objects.filter(kind=TrailJob.EXPORT, asked_by=asked_by, state__in=states)
    return exports.count() >= MAX_UNDOWNLOADED_EXPORTS


def run_next_job(*, clock: Callable[[], datetime], folder: Path | None, hostname: str) -> bool:
    """Run the job that has waited longest, and return whether there was one. folder: for files of
    exports.
    """
    job = _acquire_next_job(clock())
    if job is None:
        return False

    def report_progress(done: int, total: int = 0) -> None:
        if not _leased_job(job).update(
            done=done, total=total, lease_until=clock() + LEASE_DURATION
        ):
            raise _LeaseLost

    try:
        report_progress(0)
        if job.kind == TrailJob.VERIFICATION:
            result = _run_verification(job, clock, report_progress)
        else:
            result = _run_export(job, folder, hostname, report_progress)
    except _LeaseLost:
        return True
    except RowUnreadable:
        _leased_job(job).update(state=TrailJob.FAILED, fault="row_unreadable")
    except (PhiOidcError, ImproperlyConfigured, DatabaseError, OSError) as error:
        code = getattr(error, "code", type(error).__name__)
        _leased_job(job).update(
            state=TrailJob.WAITING, lease_until=clock() + _RETRY_DELAY, fault=code[:64]
        )
    else:
        _leased_job(job).update(state=TrailJob.DONE, fault="", result=result)
    return True


def delete_expired_jobs(*, now: datetime, folder: Path | None) -> None:
    """Mark jobs without attempts left as failed, and delete jobs that are a day old, with their
    files.
    """
    _available_jobs(now).filter(attempts__gte=MAX_ATTEMPTS).update(state=TrailJob.FAILED)
    for job in TrailJob.objects.filter(asked_at__lte=now - RETENTION_PERIOD)[:100]:
        for file in folder.glob(f"trail-{job.pk}.*") if folder else ():
            file.unlink(missing_ok=True)
        job.delete()


def open_export_file(job: TrailJob, *, folder: Path) -> BinaryIO:
    """Return the open file of an export, once: it is unlinked, so no further download is possible.

    Raises: LookupError when the export is not done, was downloaded, or its file is missing.
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
    return TrailJob.objects.all().unleased(now, lease=LEASE_DURATION).filter(state__in=_OPEN_STATES)


def _leased_job(job: TrailJob) -> QuerySet[TrailJob]:
    return TrailJob.objects.filter(pk=job.pk, attempts=job.attempts, state=TrailJob.RUNNING)


def _acquire_next_job(now: datetime) -> TrailJob | None:
    attempts = F("attempts") + 1
    for job in _available_jobs(now).filter(attempts__lt=MAX_ATTEMPTS).order_by("asked_at")[:10]:
        unchanged = _available_jobs(now).filter(attempts=job.attempts)
        if unchanged.acquire_lease(
            job.pk, now=now, lease=LEASE_DURATION, state=TrailJob.RUNNING, attempts=attempts
        ):
            job.attempts += 1
            return job
    return None


def _export_path(job: TrailJob, folder: Path) -> Path:
    """Return a path for this attempt only, so that a worker that lost its lease writes to no other
    file.
    """
    return folder / f"trail-{job.pk}.{job.attempts}.{FILE_EXTENSIONS[job.format]}"


def _run_export(
    job: TrailJob, folder: Path | None, hostname: str, report_progress: Callable[[int], None]
) -> dict[str, Any]:
    if folder is None:
        raise ImproperlyConfigured("PHI_OIDC['AUDIT_EXPORTS'] is not declared here.")
    form = EventFiltersForm(job.filters)
    done = 0
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
    summary = VerificationSummary()
    lines: list[str] = []
    with translate_database_errors():
        for finding in verify_log(
            keys=get_public_keys(), now=clock(), summary=summary, progress=report_progress
        ):
            if len(lines) < _MAX_FINDING_LINES:
                lines += [finding.render_line()]
    detail = summary.build_event_detail()
    origin = Origin(actor=job.asked_by)

    outcome: EventOutcome
    if summary.fault_count:
        outcome = "failure"
    else:
        outcome = "success"

    record(Action.AUDIT_VERIFIED, origin=origin, now=clock(), outcome=outcome, detail=detail)
    return {**detail, "waiting": summary.waiting, "lines": lines}
