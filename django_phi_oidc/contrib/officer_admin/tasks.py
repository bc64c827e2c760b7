"""The periodic task that counts for the overview."""

import logging

from ..._internal import clock
from ..._internal.periodic_task import periodic_task
from ...errors import AuditUnavailable
from .hourly_counts import update_counts
from .page_parts import load_officer_pages

logger = logging.getLogger(__name__)


@periodic_task("phi_oidc.update_overview")
def update_overview() -> None:
    """Count the events of each hour, and measure what is stored."""
    load_officer_pages()
    try:
        update_counts(now=clock.now())
    except AuditUnavailable:
        logger.warning("Cannot read the audit log, so the events for the overview are not counted.")
