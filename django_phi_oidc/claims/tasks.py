"""The door for Celery."""

from celery import shared_task

from .. import clock
from .lapsing import destroy_lapsed
from .scrubbing import scrub_due


@shared_task(name="phi_oidc.scrub", ignore_result=True, acks_late=True)
def scrub() -> None:
    """Erase the claims whose time is over, and their keys. Repeating it is harmless."""
    now = clock.now()
    scrub_due(now=now)
    destroy_lapsed(now=now)
