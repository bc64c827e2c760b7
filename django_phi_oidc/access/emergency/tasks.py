"""The door for Celery."""

from celery import shared_task

from ... import conf
from ..._internal import clock
from . import lifecycle, notifications


@shared_task(name="phi_oidc.tend_emergencies", ignore_result=True, acks_late=True)
def tend_emergencies() -> None:
    """Tell the privacy officer of emergencies, and the trail of those that are over. Repeating it is harmless."""
    lifecycle.mark_expired_emergencies(now=clock.now())
    if (declared := conf.emergency()) is not None:
        notifications.send_due_alerts(mail_to=declared.mail_to, now=clock.now())
