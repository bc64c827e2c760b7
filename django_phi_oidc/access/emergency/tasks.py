"""The Celery task of emergency access."""

from celery import shared_task

from ... import conf
from ..._internal import clock
from . import lifecycle, notifications


@shared_task(name="phi_oidc.tend_emergencies", ignore_result=True, acks_late=True)
def tend_emergencies() -> None:
    """Record expired emergencies, and mail the privacy officer about new ones. Idempotent."""
    lifecycle.mark_expired_emergencies(now=clock.now())
    if (declaration := conf.emergency()) is not None:
        notifications.send_due_alerts(mail_to=declaration.mail_to, now=clock.now())
