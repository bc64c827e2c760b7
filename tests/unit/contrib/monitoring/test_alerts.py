"""Alerts are sent once by log, signal and mail, acknowledged, and muted, each with an event."""

import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.db import transaction

from django_phi_oidc.audit.events import Origin, parse_event
from django_phi_oidc.audit.models import AuditOutbox
from django_phi_oidc.contrib.monitoring import alerts
from django_phi_oidc.contrib.monitoring.alerts import (
    RENOTIFY_AFTER,
    SEND_RETRY_DELAY,
    AlertCandidate,
    acknowledge_alert,
    create_mute,
    end_mute,
    raise_alert,
    send_due_alerts,
)
from django_phi_oidc.contrib.monitoring.models import AlertMute, SecurityAlert
from django_phi_oidc.contrib.monitoring.rules import Severity
from django_phi_oidc.signals import security_alert
from tests.support.audit_log import NOW
from tests.support.mail_settings import mail_by

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])
OFFICER = Origin(actor="7", client_ip="198.51.100.9")
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
TO = ["privacy@hospital.example"]
ADDRESS = "192.0.2.77"


def raise_for(*, kind: str = "replay", key: str = ADDRESS, at: Any = NOW, count: int = 1) -> SecurityAlert:
    candidate = AlertCandidate(kind=kind, key=key, severity=Severity.WARNING, count=count, first_seen=at, last_seen=at)
    with transaction.atomic():
        raise_alert(candidate, now=at)
    return SecurityAlert.objects.get(kind=kind, key=key, acknowledged_at=None)


def send(*, at: Any = NOW) -> int:
    return send_due_alerts(recipients=TO, now=at)


def recorded() -> list[tuple[str, str, str, dict[str, Any]]]:
    events = [parse_event(row.event).event for row in AuditOutbox.objects.order_by("id")]
    return [(event.action, event.actor, event.resource, json.loads(event.detail)) for event in events]


@pytest.fixture
def received() -> Iterator[list[SecurityAlert]]:
    alerts_received: list[SecurityAlert] = []

    def receive(*, alert: SecurityAlert, **kwargs: Any) -> None:
        alerts_received.append(alert)

    security_alert.connect(receive)
    yield alerts_received
    security_alert.disconnect(receive)


def test_repeated_alert_is_sent_once(received: list[SecurityAlert], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "phi_oidc.alerts"):
        alert = raise_for()
        raise_for(count=4, at=NOW + HOUR)
        assert (send(at=NOW + HOUR), send(at=NOW + 2 * HOUR)) == (1, 0)
        raise_for(at=NOW + HOUR + RENOTIFY_AFTER - SECOND)
        assert send(at=NOW + HOUR + RENOTIFY_AFTER) == 0
    assert caplog.messages == [f"Security alert {alert.pk}: replay, seen 5 times."]
    assert received == [alert]
    assert [message.to for message in mail.outbox] == [TO]
    assert f"warning: Repeated use of a token or sign-in, seen 5 times; alert {alert.pk}" in mail.outbox[0].body
    assert ADDRESS not in mail.outbox[0].body + mail.outbox[0].subject + caplog.text
    alert = SecurityAlert.objects.get()
    assert (alert.count, alert.first_seen, alert.notified_at) == (6, NOW, NOW + HOUR)
    assert [action for action, *_ in recorded()] == ["alert.raised"]


def test_alert_that_occurs_again_after_a_day_is_sent_again() -> None:
    raise_for()
    send()
    raise_for(at=NOW + RENOTIFY_AFTER)
    assert send(at=NOW + RENOTIFY_AFTER) == 1
    assert len(mail.outbox) == 2
    assert SecurityAlert.objects.get().count == 2


def test_many_alerts_are_sent_in_one_mail_if_there_are_recipients() -> None:
    for number in range(30):
        raise_for(key=str(number))
    assert send() == 30
    (message,) = mail.outbox
    assert message.subject == "30 security alerts of the portal"
    raise_for(key="another")
    assert send_due_alerts(recipients=(), now=NOW) == 1
    assert len(mail.outbox) == 1


def test_undeliverable_mail_is_sent_later(settings: Any, received: list[SecurityAlert]) -> None:
    raise_for()
    mail_by(settings, "smtp", host="127.0.0.1", port=1)
    assert send() == 0
    mail_by(settings, "locmem")
    assert send(at=NOW + SEND_RETRY_DELAY - SECOND) == 0
    assert send(at=NOW + SEND_RETRY_DELAY) == 1
    assert (len(mail.outbox), len(received)) == (1, 2)
    assert SecurityAlert.objects.get().notified_at == NOW + SEND_RETRY_DELAY


def test_failing_signal_receiver_does_not_prevent_the_mail(received: list[SecurityAlert]) -> None:
    def fail(**kwargs: Any) -> None:
        raise ValueError

    security_alert.connect(fail)
    try:
        raise_for()
        assert send() == 1
    finally:
        security_alert.disconnect(fail)
    assert len(mail.outbox) == len(received) == 1


def test_acknowledged_alert_is_closed_and_a_new_occurrence_opens_another() -> None:
    alert = raise_for()
    with pytest.raises(ValueError, match="note is empty"):
        acknowledge_alert(alert.pk, note=" ", origin=OFFICER, now=NOW)
    assert acknowledge_alert(alert.pk, note=" A penetration test. ", origin=OFFICER, now=NOW + HOUR)
    assert not acknowledge_alert(alert.pk, note="Another", origin=OFFICER, now=NOW + HOUR)
    alert.refresh_from_db()
    assert (alert.note, alert.acknowledged_by, alert.acknowledged_at) == ("A penetration test.", "7", NOW + HOUR)
    assert recorded()[1:] == [("alert.acknowledged", "7", f"SecurityAlert/{alert.pk}", {"rule": "replay"})]
    assert send(at=NOW + HOUR) == 0
    again = raise_for(at=NOW + 2 * HOUR)
    assert (again.pk != alert.pk, again.count, send(at=NOW + 2 * HOUR)) == (True, 1, 1)


@pytest.mark.parametrize("key", [ADDRESS, ""], ids=["key", "kind"])
def test_muted_alert_is_counted_and_sent_after_the_mute(key: str) -> None:
    pending = raise_for()
    muted = create_mute(kind="replay", key=key, until=NOW + DAY, note="Docket 5", origin=OFFICER, now=NOW)
    raise_for(count=2, at=NOW + HOUR)
    assert send(at=NOW + HOUR) == 0
    raise_for(kind="token_forged", at=NOW + HOUR)
    raise_for(key="192.0.2.78", at=NOW + HOUR)
    assert send(at=NOW + HOUR) == (2 if key else 1)
    raise_for(at=NOW + DAY)
    assert send(at=NOW + DAY) == 1
    assert SecurityAlert.objects.get(pk=pending.pk).count == 4
    detail = {"rule": "replay", "until": (NOW + DAY).isoformat()}
    assert ("alert.muted", "7", f"AlertMute/{muted.pk}", detail) in recorded()
    assert "Docket" not in "".join(AuditOutbox.objects.values_list("event", flat=True))


def test_ended_mute_is_inactive() -> None:
    muted = create_mute(kind="replay", key="", until=NOW + DAY, note="Docket 5", origin=OFFICER, now=NOW)
    assert end_mute(muted.pk, origin=OFFICER, now=NOW + HOUR)
    assert not end_mute(muted.pk, origin=OFFICER, now=NOW + HOUR)
    raise_for(at=NOW + HOUR)
    assert send(at=NOW + HOUR) == 1
    assert ("alert.unmuted", "7", f"AlertMute/{muted.pk}", {"rule": "replay"}) in recorded()


@pytest.mark.parametrize(
    "changes",
    [
        {"until": NOW},
        {"until": NOW + alerts.MAX_MUTE_DURATION + SECOND},
        {"note": " "},
        {"kind": ""},
    ],
)
def test_mute_without_an_end_a_kind_or_a_reason_is_refused(changes: dict[str, Any]) -> None:
    valid = {"kind": "replay", "key": "", "until": NOW + alerts.MAX_MUTE_DURATION, "note": "Docket 5"}
    with pytest.raises(ValueError, match="mute"):
        create_mute(**{**valid, **changes}, origin=OFFICER, now=NOW)
    assert not AlertMute.objects.exists()
    create_mute(**valid, origin=OFFICER, now=NOW)
