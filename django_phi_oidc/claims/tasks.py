"""The Celery tasks of claims."""

from .._internal import clock
from .._internal.periodic_task import periodic_task
from .retention import destroy_unused_keys, scrub_due_claims, scrub_past_limit


@periodic_task("phi_oidc.scrub")
def scrub() -> None:
    """Erase expired claims, and destroy the keys of claims that no claim needs. Idempotent."""
    now = clock.now()
    scrub_due_claims(now=now)
    destroy_unused_keys(now=now)


@periodic_task("phi_oidc.apply_retention")
def apply_retention() -> None:
    """Erase the claims of sessions that are gone, and those that CLAIMS no longer permits to store.
    Idempotent.
    """
    scrub_past_limit(now=clock.now())
