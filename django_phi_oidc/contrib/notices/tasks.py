"""The Celery task of the notices about accounts."""

from ..._internal import clock
from ..._internal.periodic_task import periodic_task
from .notices import send_due_notices


@periodic_task("phi_oidc.send_notices")
def send_notices() -> None:
    """Send the mails about linked and unlinked identities and new browsers. Idempotent."""
    send_due_notices(now=clock.now())
