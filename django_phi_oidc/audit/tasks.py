"""The trail's Celery tasks."""

from celery import shared_task

from . import outbox


@shared_task(name="phi_oidc.drain_outbox", ignore_result=True, acks_late=True)
def drain_outbox() -> None:
    """Move to the trail what waits in the outbox."""
    outbox.drain()
