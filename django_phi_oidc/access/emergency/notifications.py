"""The privacy officer is told of each emergency by mail: at least once, however often it takes.

What is due stands in the row. Whoever sends has it on lease, so a kill or a mail server that is away makes it late, and
one that is killed after the mail server has the mail sends it again. The mail names no patient and no reason.
"""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.core.mail import send_mail
from django.utils.translation import gettext, gettext_noop, override

from .models import EmergencyAccess

logger = logging.getLogger("django_phi_oidc.access")
RETRY_DELAY = timedelta(minutes=1)
"""Also the lease: longer than a mail server may take (`EMAIL_TIMEOUT`), or the mail may come twice."""
MAIL_BATCH_SIZE = 100
_SUBJECT = gettext_noop("Emergency access was opened")
_BODY = gettext_noop("""\
Somebody has opened emergency access ("break the glass").

Emergency: %(id)s
Account: %(actor)s
Purpose: %(purpose)s
Opened: %(opened_at)s (UTC)
Ends: %(expires_at)s (UTC), unless it is closed before

It waits for your review in the admin, under "Emergency accesses". The resource and the reason are there.
""")


def send_due_alerts(*, mail_to: Sequence[str], now: datetime) -> int:
    """Send the mails that are due, and return how many a mail server took. What fails is due again after RETRY."""
    due = EmergencyAccess.objects.filter(alert_due_at__lte=now).order_by("alert_due_at", "pk")
    return sum(_send_alert(row, mail_to=mail_to, now=now) for row in due.defer("reason", "note")[:MAIL_BATCH_SIZE])


def _send_alert(emergency: EmergencyAccess, *, mail_to: Sequence[str], now: datetime) -> bool:
    its = EmergencyAccess.objects.filter(pk=emergency.pk)
    if not its.filter(alert_due_at=emergency.alert_due_at).update(alert_due_at=now + RETRY_DELAY):
        return False
    opened, ends = (
        moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") for moment in (emergency.opened_at, emergency.expires_at)
    )
    told = {
        "id": emergency.pk,
        "actor": emergency.actor,
        "purpose": emergency.purpose,
        "opened_at": opened,
        "expires_at": ends,
    }
    # In the site's language: not in that of whoever opened it, whose request this may be.
    with override(settings.LANGUAGE_CODE):
        subject, text = gettext(_SUBJECT), gettext(_BODY) % told
    try:
        # One mail for all: nobody but the mail server can say whom it reached. An SMTPException is an OSError.
        send_mail(subject, text, None, list(mail_to))
    except OSError as fault:
        logger.error("The mail of emergency %s was not taken: %s.", emergency.pk, type(fault).__name__)  # noqa: TRY400
        return False
    its.update(alert_due_at=None, alerted_at=now)
    return True
