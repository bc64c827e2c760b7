"""Periodic work of the app."""

from datetime import datetime

from ..._internal.periodic_task import row_pruner
from .accounting import get_accounting_start
from .accounting_copies import delete_old_copies


@row_pruner
def prune_copies(*, now: datetime, before: datetime) -> None:
    """Delete what was given before the period of the right to an accounting of disclosures."""
    delete_old_copies(before=get_accounting_start(now))
