"""The Celery task of emergency access."""

from ..._internal import clock
from ..._internal.periodic_task import periodic_task
from . import conf, lifecycle, notifications


@periodic_task("phi_oidc.tend_emergencies")
def tend_emergencies() -> None:
    """Record expired emergencies, and mail the privacy officer about new and overdue ones.
    Idempotent.
    """
    try:
        lifecycle.mark_expired_emergencies(now=clock.now())
    finally:
        if (declaration := conf.emergency()) is not None:
            recipients = declaration.mail_to
            period = declaration.review_within
            notifications.send_due_alerts(mail_to=recipients, now=clock.now(), review_within=period)
