"""The Celery task that forgets what need not be remembered."""

from celery import shared_task

from .. import clock
from . import spending


@shared_task(name="phi_oidc.prune_spent", ignore_result=True, acks_late=True)
def prune_spent() -> None:
    """Forget spent values that are refused for their age by now."""
    spending.prune(now=clock.now())
