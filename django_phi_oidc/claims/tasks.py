"""The Celery task of claims."""

from .._internal import clock
from .._internal.periodic_task import periodic_task
from .retention import destroy_unused_keys, scrub_due_claims


@periodic_task("phi_oidc.scrub")
def scrub() -> None:
    """Erase expired claims and unused retention keys. Idempotent."""
    now = clock.now()
    scrub_due_claims(now=now)
    destroy_unused_keys(now=now)
