"""The Celery task that forgets what need not be remembered."""

from celery import shared_task

from .._internal import clock
from . import cache


@shared_task(name="phi_oidc.prune_spent", ignore_result=True, acks_late=True)
def delete_expired_identifiers() -> None:
    """Forget spent values that are refused for their age by now."""
    cache.delete_expired(now=clock.now())
