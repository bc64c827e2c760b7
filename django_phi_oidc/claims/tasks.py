"""The Celery tasks of claims."""

from celery import shared_task

from .._internal import clock
from .retention import destroy_unused_keys, scrub_due_claims, scrub_past_limit


@shared_task(name="phi_oidc.scrub", ignore_result=True, acks_late=True)
def scrub() -> None:
    """Erase expired claims and unused retention keys. Idempotent."""
    now = clock.now()
    scrub_due_claims(now=now)
    destroy_unused_keys(now=now)


@shared_task(name="phi_oidc.apply_retention", ignore_result=True, acks_late=True)
def apply_retention() -> None:
    """Erase the claims that the current declarations no longer permit to store. Idempotent."""
    scrub_past_limit(now=clock.now())
