"""The Celery task of the notices about accounts."""

from datetime import datetime

from ..._internal import clock
from ..._internal.periodic_task import periodic_task, row_pruner
from .devices import delete_unused_devices
from .notices import delete_finished_notices, send_due_notices


@periodic_task("phi_oidc.send_notices")
def send_notices() -> None:
    """Send the mails about linked and unlinked identities and new browsers. Idempotent."""
    send_due_notices(now=clock.now())


@row_pruner
def prune_notices(*, now: datetime, before: datetime) -> None:
    """Delete the notices that were finished before that time, and browsers that are not used."""
    delete_finished_notices(before=before)
    delete_unused_devices(now=now)
