"""Periodic work of the app."""

from datetime import datetime

from ..._internal.periodic_task import row_pruner
from .accounting import get_accounting_start
from .accounting_copies import delete_old_copies


@row_pruner
def prune_copies(*, now: datetime, before: datetime) -> None:
    """Delete copies of accountings from before the period for which a person may request one."""
    delete_old_copies(before=get_accounting_start(now))
