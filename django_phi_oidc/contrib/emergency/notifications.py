"""Mail the privacy officer about each emergency, at least once, and once more if its review is
overdue.

The row stores when its next mail is due. A sender leases the row first: a killed worker or an
unavailable mail server delays the mail, and a worker killed after the mail server accepted it sends
it twice. The mail names no patient and no reason.
"""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.mail import send_mail
from django.db import transaction
from django.utils.translation import gettext, gettext_noop, override

from ...audit.descriptions import get_purpose_label
from .models import EmergencyAccess

logger = logging.getLogger("django_phi_oidc.access")
RETRY_DELAY = timedelta(minutes=1)
"""Also the length of the lease: longer than `EMAIL_TIMEOUT`, or the mail may be sent twice."""
MAIL_BATCH_SIZE = 100
_SUBJECT = gettext_noop("Emergency access was opened")
_LOCAL_ACCOUNT = gettext_noop("%(actor)s, signed in as a local account, without the provider")
_BODY = gettext_noop("""\
Emergency access ("break the glass") was opened.

Emergency: %(id)s
Account: %(actor)s
Purpose: %(purpose)s
Opened: %(opened_at)s (UTC)
Ends: %(expires_at)s (UTC), unless it is closed before

Review it in the admin, under "Emergency accesses", after it has ended. The record and the reason are shown there.
""")  # noqa: E501
_REMINDER_SUBJECT = gettext_noop("The review of an emergency access is overdue")
_REMINDER_BODY = gettext_noop("""\
An emergency access has not been reviewed in time.

Emergency: %(id)s
Account: %(actor)s
Purpose: %(purpose)s
Opened: %(opened_at)s (UTC)

Review it in the admin, under "Emergency accesses". The record and the reason are shown there.
""")


def send_due_alerts(
    *, mail_to: Sequence[str], now: datetime, review_within: timedelta | None = None
) -> int:
    """Send the due mails, and return how many a mail server accepted. A failed mail is due again
    after RETRY_DELAY.

    review_within: how long after its end a review is due; None: no reminders.
    """
    due = EmergencyAccess.objects.filter(alert_due_at__lte=now).order_by("alert_due_at", "pk")
    rows = due.defer("reason", "note")[:MAIL_BATCH_SIZE]
    sent_count = 0
    for row in rows:
        if _send_alert(row, mail_to=mail_to, now=now, review_within=review_within):
            sent_count += 1
    return sent_count


def _send_alert(
    emergency: EmergencyAccess,
    *,
    mail_to: Sequence[str],
    now: datetime,
    review_within: timedelta | None,
) -> bool:
    is_reminder = emergency.alerted_at is not None
    row = EmergencyAccess.objects.filter(pk=emergency.pk)
    with transaction.atomic():
        # A stopped process that locks one row must not hold up the mails of the others.
        free = row.filter(alert_due_at=emergency.alert_due_at).select_for_update(skip_locked=True)
        if not row.filter(pk__in=free.values("pk")).update(alert_due_at=now + RETRY_DELAY):
            return False
    try:
        _send_mail(emergency, mail_to)
    except Exception as error:  # noqa: BLE001 -- of any mail backend: the other mails must be sent
        logger.error(  # noqa: TRY400
            "The mail of emergency %s was not sent: %s.", emergency.pk, type(error).__name__
        )
        return False
    if is_reminder:
        row.update(alert_due_at=None)
        return True

    alert_due_at = None
    if review_within:
        alert_due_at = emergency.expires_at + review_within

    row.update(alerted_at=now, alert_due_at=alert_due_at)
    # It may have been reviewed in the meantime: after an outage of the mail server, for example.
    row.exclude(reviewed_at=None).update(alert_due_at=None)
    return True


def _send_mail(emergency: EmergencyAccess, mail_to: Sequence[str]) -> None:
    parameters: dict[str, Any] = {"id": emergency.pk, "actor": emergency.actor, "purpose": ""}
    for name in ("opened_at", "expires_at"):
        parameters[name] = getattr(emergency, name).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    # In the language of the site, not of the current request.
    with override(settings.LANGUAGE_CODE):
        parameters["purpose"] = get_purpose_label(emergency.purpose)
        if emergency.is_local:
            parameters["actor"] = gettext(_LOCAL_ACCOUNT) % parameters
        is_reminder = emergency.alerted_at is not None
        if is_reminder:
            subject = _REMINDER_SUBJECT
            body = _REMINDER_BODY
        else:
            subject = _SUBJECT
            body = _BODY

        subject = gettext(subject)
        body = gettext(body) % parameters
    # One mail to all recipients: only the mail server knows which of them it reached.
    send_mail(subject, body, None, list(mail_to))
