"""End many sessions as a job: in batches, with a progress that a killed worker does not lose.

A job is a leased row. Each batch ends its sessions and updates the row in one transaction, so
another worker continues after the lease where a killed one stopped. The tokens are revoked by the
sweep: no request to a provider is made here.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import DatabaseError, OperationalError, transaction
from django.db.models import Count, F, QuerySet
from django.urls import reverse

from ..._internal import randomness
from ..._internal.sql import delete_in_batches, is_lock_timeout
from ...audit.events import Action, Origin
from ...audit.outbox import enqueue
from ...errors import PhiOidcError
from ...sessions.lifecycle import end_sessions
from ...sessions.models import EndReason, OIDCSession, PendingRevocation, RevocationStatus
from ...sessions.session_selection import SessionSelection, count_people
from .models import SessionEndJob

BATCH_SIZE = 1_000
"""Sessions ended by the same statements, in one transaction."""
LEASE_DURATION = timedelta(minutes=1)
"""Renewed by each batch."""
MAX_FAILURES = 5
RETRY_DELAY = timedelta(seconds=30)
LOCK_TIMEOUT = "lock_timeout"
_CLOCK_DIFFERENCE = timedelta(minutes=1)
"""Between two servers of the portal."""
_State = SessionEndJob.State
_OPEN_STATES = (_State.WAITING, _State.RUNNING)


class _EndJobLeaseLost(Exception):
    """Another worker has the job, or it was deleted: write nothing more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenProgress:
    """What became of the tokens of a job's sessions."""

    revoked: int = 0
    waiting: int = 0
    failed: int = 0
    """Refused or not supported by the provider, or abandoned."""
    faults: Sequence[tuple[str, int]] = ()
    """The codes of the last faults, and how many tokens have each."""

    @property
    def total(self) -> int:
        return self.revoked + self.waiting + self.failed


def start_bulk_end(
    selection: SessionSelection, *, reason: str, origin: Origin, now: datetime
) -> SessionEndJob:
    """Create a job that ends these sessions, with its event, in one transaction.

    reason: a code, of the event. Sessions that start more than a minute later are not ended.
    Raises: ValueError without any criterion, which would select all sessions.
    """
    if not selection.scope:
        raise ValueError("A bulk end needs a criterion.")

    if selection.user:
        resource = f"user/{selection.user}"
    else:
        resource = ""

    if not resource and selection.group is not None:
        resource = f"group/{selection.group}"
    with transaction.atomic():
        job = SessionEndJob(
            id=randomness.uuid7(now),
            selection=asdict(selection),
            requested_by=origin.actor,
            requested_at=now,
            client_ip=origin.client_ip,
        )
        remaining = list_remaining(job)
        job.total = remaining.count()
        job.save(force_insert=True)
        enqueue(
            Action.SESSION_END_REQUESTED,
            origin=origin,
            now=now,
            provider=selection.provider,
            resource=resource,
            reason=reason,
            detail={
                "job": str(job.pk),
                "people": count_people(remaining),
                "scope": selection.scope,
                "sessions": job.total,
            },
        )
    return job


def build_job_url(job: SessionEndJob) -> str:
    """Return the path of the page that shows the progress."""
    return reverse("admin:phi_oidc_officer_admin_sessionendjob_change", args=[job.pk])


def list_remaining(job: SessionEndJob) -> QuerySet[OIDCSession]:
    """Return the sessions of the job that are still live."""
    selection = SessionSelection(**job.selection)
    sessions = selection.filter(OIDCSession.objects.live())
    return sessions.filter(started_at__lte=job.requested_at + _CLOCK_DIFFERENCE)


def get_token_progress(job: SessionEndJob) -> TokenProgress:
    """Return the state of the job's tokens, by one SELECT."""
    counts = dict.fromkeys(("revoked", "waiting", "failed"), 0)
    faults = dict[str, int]()
    rows = PendingRevocation.objects.filter(end_job=job.pk).order_by("status", "last_fault")
    for status, fault, count in rows.values_list("status", "last_fault").annotate(Count("pk")):
        names = {RevocationStatus.DONE: "revoked", RevocationStatus.PENDING: "waiting"}
        counts[names.get(status, "failed")] += count
        if fault and status != RevocationStatus.DONE:
            faults[fault] = faults.get(fault, 0) + count
    return TokenProgress(**counts, faults=tuple(faults.items()))


def run_due_jobs(*, clock: Callable[[], datetime], budget_seconds: float) -> None:
    """Run the jobs that no worker holds, oldest first, until the budget is used up."""
    ends_at = time.monotonic() + budget_seconds
    due = SessionEndJob.objects.all().unleased(clock(), lease=LEASE_DURATION)
    for pk in (
        due.filter(state__in=_OPEN_STATES)
        .order_by("requested_at")
        .values_list("pk", flat=True)[:10]
    ):
        if (seconds_left := ends_at - time.monotonic()) > 0:
            run_job(pk, clock=clock, budget_seconds=seconds_left)


def run_job(job_id: uuid.UUID, *, clock: Callable[[], datetime], budget_seconds: float) -> bool:
    """End sessions of the job until none is left or the budget is used up. False: another worker
    holds it, or none.

    At least one batch is ended. A batch that fails is retried by a later run; after MAX_FAILURES
    the job has failed.
    """
    jobs: Any = SessionEndJob.objects.filter(state__in=_OPEN_STATES)
    attempts = F("attempts") + 1
    if not jobs.acquire_lease(
        job_id, now=clock(), lease=LEASE_DURATION, state=_State.RUNNING, attempts=attempts
    ):
        return False
    job = SessionEndJob.objects.get(pk=job_id)
    ends_at = time.monotonic() + budget_seconds
    try:
        for session_ids in _iterate_batches(job):
            _end_batch(job, session_ids, clock=clock)
            if time.monotonic() >= ends_at:
                break
        has_time = time.monotonic() < ends_at
        if not list_remaining(job).exists():
            _leased(job).update(state=_State.DONE, lease_until=None, fault="")
        elif has_time:
            # All batches were tried: other transactions lock the sessions that remain.
            _record_failure(job, LOCK_TIMEOUT, now=clock())
        else:
            # The lease has ended, so the job is due at once, and the page shows when a worker last
            # worked on it.
            _leased(job).update(state=_State.WAITING, lease_until=clock(), fault="")
    except _EndJobLeaseLost:
        pass
    except (PhiOidcError, DatabaseError) as error:
        _record_failure(job, getattr(error, "code", type(error).__name__), now=clock())
    return True


def resume_job(job_id: uuid.UUID) -> None:
    """Make a job that failed, or waits for its next attempt, due now."""
    stopped = SessionEndJob.objects.filter(pk=job_id, state__in=(_State.FAILED, _State.WAITING))
    stopped.update(state=_State.WAITING, failures=0, lease_until=None)


def delete_old_jobs(*, before: datetime) -> int:
    """Delete the jobs that were requested before that time; return their number."""
    return delete_in_batches(SessionEndJob.objects.filter(requested_at__lt=before))


def _leased(job: SessionEndJob) -> QuerySet[SessionEndJob]:
    return SessionEndJob.objects.filter(pk=job.pk, attempts=job.attempts, state=_State.RUNNING)


def _iterate_batches(job: SessionEndJob) -> Iterator[list[uuid.UUID]]:
    """Yield the ids of the sessions in order, each once, although those that are locked stay
    live.
    """
    remaining = list_remaining(job).order_by("pk").values_list("pk", flat=True)
    batch = list(remaining[:BATCH_SIZE])
    while batch:
        yield batch
        batch = list(remaining.filter(pk__gt=batch[-1])[:BATCH_SIZE])


def _end_batch(
    job: SessionEndJob, session_ids: Sequence[uuid.UUID], *, clock: Callable[[], datetime]
) -> None:
    """End the sessions and write the progress. If another transaction locks one for too long, end
    the others.
    """
    try:
        _end_and_count(job, session_ids, now=clock())
    except OperationalError as error:
        if not is_lock_timeout(error):
            raise
        half = len(session_ids) // 2
        for part in (session_ids[:half], session_ids[half:]) if half else ():
            _end_batch(job, part, clock=clock)


def _end_and_count(job: SessionEndJob, session_ids: Sequence[uuid.UUID], *, now: datetime) -> None:
    """Raises: _EndJobLeaseLost, and then nothing is ended."""
    origin = Origin(actor=job.requested_by, client_ip=job.client_ip)
    with transaction.atomic():
        ended = end_sessions(
            session_ids, EndReason.ADMINISTRATOR, origin=origin, now=now, end_job=job.pk
        )
        # Last, so that a reader of the row does not wait for the batch.
        if not _leased(job).update(done=F("done") + len(ended), lease_until=now + LEASE_DURATION):
            raise _EndJobLeaseLost


def _record_failure(job: SessionEndJob, fault: str, *, now: datetime) -> None:
    is_last = job.failures + 1 >= MAX_FAILURES
    _leased(job).update(
        state=_State.FAILED if is_last else _State.WAITING,
        failures=F("failures") + 1,
        lease_until=None if is_last else now + RETRY_DELAY,
        fault=fault[:64],
    )
