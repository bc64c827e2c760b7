"""The door for Celery."""

from celery import shared_task

from .. import clock, conf
from . import closing, mailing


@shared_task(name="phi_oidc.tend_emergencies", ignore_result=True, acks_late=True)
def tend_emergencies() -> None:
    """Tell the privacy officer of emergencies, and the trail of those that are over. Repeating it is harmless."""
    closing.expire(now=clock.now())
    if (declared := conf.emergency()) is not None:
        mailing.send_due(mail_to=declared.mail_to, now=clock.now())
