"""Alerts: raised once for a kind and key, sent to the operators, acknowledged, muted. Each step is
an audit event.
"""

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from smtplib import SMTPException

from django.conf import settings
from django.core.mail import send_mail
from django.db import transaction
from django.db.models import Q
from django.utils.translation import gettext, ngettext, override

from ..._internal.sql import delete_in_batches
from ...audit.descriptions import get_alert_label
from ...audit.events import Action, Origin
from ...audit.outbox import enqueue
from ...signals import security_alert
from .models import AlertMute, SecurityAlert
from .severity import Severity

logger = logging.getLogger("phi_oidc.alerts")
RENOTIFY_AFTER = timedelta(days=1)
"""An open alert that occurs again after this time is sent again."""
SEND_RETRY_DELAY = timedelta(minutes=5)
"""An alert is sent again after this time when a worker was killed or the mail could not be sent."""
MAX_MUTE_DURATION = timedelta(days=90)
MAX_ALERTS_PER_RUN = 100
"""Alerts in one run and one mail."""
_LOG_LEVELS = {
    Severity.INFO: logging.INFO,
    Severity.WARNING: logging.WARNING,
    Severity.CRITICAL: logging.CRITICAL,
}


@dataclass(slots=True, kw_only=True)
class AlertCandidate:
    """The occurrences of one kind and key."""

    kind: str
    key: str = ""
    severity: Severity = Severity.CRITICAL
    count: int = 1
    first_seen: datetime
    last_seen: datetime
    event_id: uuid.UUID | None = None
    has_alert_event: bool = False
    """The audit log already has an `alert.raised` for it."""


def raise_alert(candidate: AlertCandidate, *, now: datetime) -> None:
    """Add the occurrences to the open alert of that kind and key, or open one; it is sent unless it
    is muted.

    Requires: an open transaction.
    """
    defaults = {name: getattr(candidate, name) for name in ("severity", "first_seen", "last_seen")}
    alert, _ = SecurityAlert.objects.select_for_update().get_or_create(
        kind=candidate.kind, key=candidate.key, acknowledged_at=None, defaults=defaults
    )
    is_due = alert.notified_at is None or candidate.last_seen - alert.last_seen >= RENOTIFY_AFTER
    mutes = AlertMute.objects.filter(
        active_mute_filter(now=now), kind=candidate.kind, key__in=["", candidate.key]
    )
    if is_due and alert.due_at is None and not mutes.exists():
        alert.due_at = now
        if not candidate.has_alert_event:
            resource = f"SecurityAlert/{alert.pk}"
            detail = {"rule": candidate.kind, "count": candidate.count}
            enqueue(Action.ALERT_RAISED, origin=Origin(), now=now, resource=resource, detail=detail)
    alert.count += candidate.count
    alert.first_seen = min(alert.first_seen, candidate.first_seen)
    alert.last_seen = max(alert.last_seen, candidate.last_seen)
    alert.event = candidate.event_id or alert.event
    alert.save(update_fields=["count", "first_seen", "last_seen", "event", "due_at"])


def send_due_alerts(*, recipients: Sequence[str], now: datetime) -> int:
    """Send the due alerts by log, signal and one mail for all, at least once each; return how many
    were sent.

    The mail has kinds and counts, never the key. A mail that cannot be sent is retried after
    SEND_RETRY_DELAY.
    """
    lease = now + SEND_RETRY_DELAY
    with transaction.atomic():
        due = SecurityAlert.objects.filter(due_at__lte=now).order_by("due_at", "pk")
        # A stopped process that locks one alert must not hold up the others.
        alerts = list(due.select_for_update(skip_locked=True)[:MAX_ALERTS_PER_RUN])
        SecurityAlert.objects.filter(pk__in=[alert.pk for alert in alerts]).update(due_at=lease)
    for alert in alerts:
        level = _LOG_LEVELS[Severity(alert.severity)]
        logger.log(
            level, "Security alert %s: %s, seen %s times.", alert.pk, alert.kind, alert.count
        )
        security_alert.send_robust(sender=SecurityAlert, alert=alert)
    if alerts and recipients:
        try:
            _send_alert_mail(alerts, recipients)
        except (SMTPException, OSError):
            logger.exception("The mail about %s security alerts could not be sent.", len(alerts))
            return 0
    SecurityAlert.objects.filter(pk__in=[alert.pk for alert in alerts], due_at=lease).update(
        due_at=None, notified_at=now
    )
    return len(alerts)


def delete_acknowledged_alerts(*, before: datetime) -> int:
    """Delete the alerts that were acknowledged before that time; return their number."""
    return delete_in_batches(SecurityAlert.objects.filter(acknowledged_at__lt=before))


def acknowledge_alert(pk: int, *, note: str, origin: Origin, now: datetime) -> bool:
    """Close the alert, and return whether it was open. The next occurrence opens a new one. Raises:
    ValueError.
    """
    if not note.strip():
        raise ValueError("The note is empty.")
    with transaction.atomic():
        closed = SecurityAlert.objects.filter(pk=pk, acknowledged_at=None).update(
            acknowledged_at=now, acknowledged_by=origin.actor, note=note.strip(), due_at=None
        )
        if closed:
            resource = f"SecurityAlert/{pk}"
            detail = {"rule": SecurityAlert.objects.get(pk=pk).kind}
            enqueue(
                Action.ALERT_ACKNOWLEDGED, origin=origin, now=now, resource=resource, detail=detail
            )
    return bool(closed)


def create_mute(
    *, kind: str, key: str, until: datetime, note: str, origin: Origin, now: datetime
) -> AlertMute:
    """Stop sending alerts of that kind, or of that kind and key, until a time. Raises:
    ValueError.
    """
    if not now < until <= now + MAX_MUTE_DURATION:
        raise ValueError(f"A mute lasts {MAX_MUTE_DURATION.days} days at most.")
    if not kind or not note.strip():
        raise ValueError("A mute needs a kind and a reason.")
    with transaction.atomic():
        mute = AlertMute.objects.create(
            kind=kind, key=key, until=until, note=note.strip(), muted_at=now, muted_by=origin.actor
        )
        alerts = SecurityAlert.objects.filter(kind=kind)
        (alerts.filter(key=key) if key else alerts).update(due_at=None)
        detail = {"rule": kind, "until": until.isoformat()}
        enqueue(
            Action.ALERT_MUTED,
            origin=origin,
            now=now,
            resource=f"AlertMute/{mute.pk}",
            detail=detail,
        )
    return mute


def end_mute(pk: int, *, origin: Origin, now: datetime) -> bool:
    """End a mute before its time, and return whether it was active."""
    with transaction.atomic():
        ended = AlertMute.objects.filter(pk=pk, lifted_at=None, until__gt=now).update(lifted_at=now)
        if ended:
            resource = f"AlertMute/{pk}"
            detail = {"rule": AlertMute.objects.get(pk=pk).kind}
            enqueue(Action.ALERT_UNMUTED, origin=origin, now=now, resource=resource, detail=detail)
    return bool(ended)


def active_mute_filter(*, now: datetime) -> Q:
    return Q(lifted_at=None, until__gt=now)


def _send_alert_mail(alerts: Sequence[SecurityAlert], recipients: Sequence[str]) -> None:
    # In the language of the site.
    count = len(alerts)
    with override(settings.LANGUAGE_CODE):
        subject = ngettext(
            "%(count)d security alert of the portal",
            "%(count)d security alerts of the portal",
            count,
        )
        lines = [_format_alert_line(alert) for alert in alerts]
        text = "\n".join(
            [*lines, "", gettext("The keys of these alerts are in the portal's admin.")]
        )
    send_mail(subject % {"count": count}, text, None, list(recipients))


def _format_alert_line(alert: SecurityAlert) -> str:
    label = get_alert_label(alert.kind)
    values = {
        "severity": alert.get_severity_display(),
        "kind": label,
        "count": alert.count,
        "alert": alert.pk,
    }
    text = ngettext(
        "%(severity)s: %(kind)s, seen %(count)d time; alert %(alert)d",
        "%(severity)s: %(kind)s, seen %(count)d times; alert %(alert)d",
        alert.count,
    )
    return text % values
