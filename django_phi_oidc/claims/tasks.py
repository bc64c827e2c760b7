"""The door for Celery."""

from celery import shared_task

from .. import clock
from .scrubbing import scrub_due


@shared_task(name="phi_oidc.scrub", ignore_result=True, acks_late=True)
def scrub() -> None:
    """Erase the claims whose time is over. Repeating it is harmless."""
    scrub_due(now=clock.now())
