"""The Celery task that deletes expired identifiers."""

from celery import shared_task

from .._internal import clock
from . import cache


@shared_task(name="phi_oidc.prune_spent", ignore_result=True, acks_late=True)
def delete_expired_identifiers() -> None:
    """Delete used identifiers that are refused for their age by now."""
    cache.delete_expired(now=clock.now())
