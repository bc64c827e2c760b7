"""Alerts: raised once for a kind and key, told to people, acknowledged, and muted for a time. Each act is an event."""

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

from ..audit.events import Action, Origin
from ..audit.outbox import enqueue
from ..signals import security_alert
from .models import AlertMute, SecurityAlert
from .rules import Severity

logger = logging.getLogger("phi_oidc.alerts")
RENOTIFY_AFTER = timedelta(days=1)
"""People are told again of an open alert that comes again after so long."""
SEND_RETRY_DELAY = timedelta(minutes=5)
"""After which they are told again when a worker died, or no mail could be sent."""
MAX_MUTE_DURATION = timedelta(days=90)
MAX_ALERTS_PER_RUN = 100
"""Alerts of which one run, and one mail, tells."""
_LOG_LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.CRITICAL: logging.CRITICAL}


@dataclass(slots=True, kw_only=True)
class AlertCandidate:
    """How often one kind and key was seen."""

    kind: str
    key: str
    severity: Severity
    count: int
    first_seen: datetime
    last_seen: datetime
    event_id: uuid.UUID | None = None
    has_alert_event: bool = False
    """The trail has an `alert.raised` of it already."""


def raise_alert(candidate: AlertCandidate, *, now: datetime) -> None:
    """Count what was seen in the open alert of that kind and key, or open one; people are told unless it is muted.

    Requires: a transaction of the caller's.
    """
    alert, _ = SecurityAlert.objects.select_for_update().get_or_create(
        kind=candidate.kind,
        key=candidate.key,
        acknowledged_at=None,
        defaults={
            "severity": candidate.severity,
            "first_seen": candidate.first_seen,
            "last_seen": candidate.last_seen,
        },
    )
    is_news = alert.told_at is None or candidate.last_seen - alert.last_seen >= RENOTIFY_AFTER
    if is_news and alert.due_at is None and not _is_muted(candidate.kind, candidate.key, now=now):
        alert.due_at = now
        if not candidate.has_alert_event:
            enqueue(
                Action.ALERT_RAISED,
                origin=Origin(),
                now=now,
                resource=f"SecurityAlert/{alert.pk}",
                detail={"rule": candidate.kind, "count": candidate.count},
            )
    alert.count += candidate.count
    alert.first_seen = min(alert.first_seen, candidate.first_seen)
    alert.last_seen = max(alert.last_seen, candidate.last_seen)
    alert.event = candidate.event_id or alert.event
    alert.save(update_fields=["count", "first_seen", "last_seen", "event", "due_at"])


def send_due_alerts(*, recipients: Sequence[str], now: datetime) -> int:
    """Tell of what is due, by log, signal and one mail for all, at least once each; return of how many.

    A mail names kinds and numbers, never whom they are about. One that can't be sent is tried again after AGAIN.
    """
    due = SecurityAlert.objects.filter(due_at__lte=now).order_by("due_at", "pk")[:MAX_ALERTS_PER_RUN]
    lease = now + SEND_RETRY_DELAY
    mine = [
        alert for alert in due if SecurityAlert.objects.filter(pk=alert.pk, due_at=alert.due_at).update(due_at=lease)
    ]
    for alert in mine:
        logger.log(
            _LOG_LEVELS[Severity(alert.severity)],
            "Security alert %s: %s, seen %s times.",
            alert.pk,
            alert.kind,
            alert.count,
        )
        security_alert.send_robust(sender=SecurityAlert, alert=alert)
    if mine and recipients:
        try:
            _send_alert_mail(mine, recipients)
        except (SMTPException, OSError):
            logger.exception("No mail of %s security alerts could be sent.", len(mine))
            return 0
    SecurityAlert.objects.filter(pk__in=[alert.pk for alert in mine], due_at=lease).update(due_at=None, told_at=now)
    return len(mine)


def acknowledge_alert(pk: int, *, note: str, origin: Origin, now: datetime) -> bool:
    """Close the alert, and say whether it was open: what comes again opens another.

    Raises: ValueError without a note.
    """
    if not note.strip():
        raise ValueError("Say what came of it.")
    with transaction.atomic():
        closed = SecurityAlert.objects.filter(pk=pk, acknowledged_at=None).update(
            acknowledged_at=now, acknowledged_by=origin.actor, note=note.strip(), due_at=None
        )
        if closed:
            rule = SecurityAlert.objects.values_list("kind", flat=True).get(pk=pk)
            resource = f"SecurityAlert/{pk}"
            enqueue(Action.ALERT_ACKNOWLEDGED, origin=origin, now=now, resource=resource, detail={"rule": rule})
    return bool(closed)


def create_mute(*, kind: str, key: str, until: datetime, note: str, origin: Origin, now: datetime) -> AlertMute:
    """Let nobody be told of alerts of that kind, or of that kind and key, for a time. Raises: ValueError."""
    if not now < until <= now + MAX_MUTE_DURATION:
        raise ValueError(f"A mute ends, within {MAX_MUTE_DURATION.days} days.")
    if not kind or not note.strip():
        raise ValueError("A mute has a kind and a reason.")
    with transaction.atomic():
        muted = AlertMute.objects.create(
            kind=kind, key=key, until=until, note=note.strip(), muted_at=now, muted_by=origin.actor
        )
        alerts = SecurityAlert.objects.filter(kind=kind)
        (alerts.filter(key=key) if key else alerts).update(due_at=None)
        detail = {"rule": kind, "until": until.isoformat()}
        enqueue(Action.ALERT_MUTED, origin=origin, now=now, resource=f"AlertMute/{muted.pk}", detail=detail)
    return muted


def end_mute(pk: int, *, origin: Origin, now: datetime) -> bool:
    """End a mute before its time, and say whether it lasted."""
    with transaction.atomic():
        ended = AlertMute.objects.filter(pk=pk, lifted_at=None, until__gt=now).update(lifted_at=now)
        if ended:
            rule = AlertMute.objects.values_list("kind", flat=True).get(pk=pk)
            resource = f"AlertMute/{pk}"
            enqueue(Action.ALERT_UNMUTED, origin=origin, now=now, resource=resource, detail={"rule": rule})
    return bool(ended)


def active_mute_filter(*, now: datetime) -> Q:
    """Return what is true of the mutes that last."""
    return Q(lifted_at=None, until__gt=now)


def _is_muted(kind: str, key: str, *, now: datetime) -> bool:
    return AlertMute.objects.filter(active_mute_filter(now=now), kind=kind, key__in=["", key]).exists()


def _send_alert_mail(alerts: Sequence[SecurityAlert], recipients: Sequence[str]) -> None:
    """In the site's language."""
    with override(settings.LANGUAGE_CODE):
        subject = ngettext(
            "%(count)d security alert of the portal", "%(count)d security alerts of the portal", len(alerts)
        )
        lines = [_format_alert_line(alert) for alert in alerts]
        text = "\n".join([*lines, "", gettext("Whom they are about is in the portal's admin.")])
    send_mail(subject % {"count": len(alerts)}, text, None, list(recipients))


def _format_alert_line(alert: SecurityAlert) -> str:
    told = {"severity": alert.get_severity_display(), "kind": alert.kind, "count": alert.count, "alert": alert.pk}
    line = ngettext(
        "%(severity)s: %(kind)s, seen %(count)d time; alert %(alert)d",
        "%(severity)s: %(kind)s, seen %(count)d times; alert %(alert)d",
        alert.count,
    )
    return line % told
