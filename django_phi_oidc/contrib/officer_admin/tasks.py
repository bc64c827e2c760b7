"""The periodic tasks that end many sessions, and count for the overview."""

import logging
from datetime import datetime

from ..._internal import clock
from ..._internal.periodic_task import periodic_task, row_pruner
from ...errors import AuditUnavailable
from ...sessions.tasks import SWEEP_SECONDS
from . import session_end_jobs
from .hourly_counts import update_counts
from .page_parts import load_officer_pages

logger = logging.getLogger(__name__)


@periodic_task("phi_oidc.run_session_end_jobs")
def run_session_end_jobs() -> None:
    """End the sessions of the jobs that administrators have requested. The sweep revokes their
    tokens.
    """
    session_end_jobs.run_due_jobs(clock=clock.now, budget_seconds=SWEEP_SECONDS)


@row_pruner
def delete_old_end_jobs(*, now: datetime, before: datetime) -> None:
    """Delete the jobs whose retention has ended."""
    session_end_jobs.delete_old_jobs(before=before)


@periodic_task("phi_oidc.update_overview")
def update_overview() -> None:
    """Count the events of each hour, and measure what is stored."""
    load_officer_pages()
    try:
        update_counts(now=clock.now())
    except AuditUnavailable:
        logger.warning("Cannot read the audit log, so the events for the overview are not counted.")
