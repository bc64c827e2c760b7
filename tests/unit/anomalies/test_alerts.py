"""An alert is told of once, by log, signal and mail; acknowledged and muted by somebody, with an event of each act."""

import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.db import transaction

from django_phi_oidc.anomalies import alerts
from django_phi_oidc.anomalies.alerts import (
    RENOTIFY_AFTER,
    SEND_RETRY_DELAY,
    AlertCandidate,
    acknowledge_alert,
    create_mute,
    end_mute,
    raise_alert,
    send_due_alerts,
)
from django_phi_oidc.anomalies.models import AlertMute, SecurityAlert
from django_phi_oidc.anomalies.rules import Severity
from django_phi_oidc.audit.events import Origin, parse_event
from django_phi_oidc.audit.models import AuditOutbox
from django_phi_oidc.signals import security_alert
from tests.support.audit_log import NOW
from tests.support.mail_settings import mail_by

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])
OFFICER = Origin(actor="7", client_ip="198.51.100.9")
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
TO = ["privacy@hospital.example"]
WHO = "192.0.2.77"


def seen(*, kind: str = "replay", key: str = WHO, at: Any = NOW, count: int = 1) -> SecurityAlert:
    sighting = AlertCandidate(kind=kind, key=key, severity=Severity.WARNING, count=count, first_seen=at, last_seen=at)
    with transaction.atomic():
        raise_alert(sighting, now=at)
    return SecurityAlert.objects.get(kind=kind, key=key, acknowledged_at=None)


def tell(*, at: Any = NOW) -> int:
    return send_due_alerts(recipients=TO, now=at)


def told() -> list[tuple[str, str, str, dict[str, Any]]]:
    found = [parse_event(row.event).event for row in AuditOutbox.objects.order_by("id")]
    return [(each.action, each.actor, each.resource, json.loads(each.detail)) for each in found]


@pytest.fixture
def heard() -> Iterator[list[SecurityAlert]]:
    found: list[SecurityAlert] = []

    def hear(*, alert: SecurityAlert, **kwargs: Any) -> None:
        found.append(alert)

    security_alert.connect(hear)
    yield found
    security_alert.disconnect(hear)


def test_alert_is_told_of_once_however_often_it_comes(
    heard: list[SecurityAlert], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "phi_oidc.alerts"):
        alert = seen()
        seen(count=4, at=NOW + HOUR)
        assert (tell(at=NOW + HOUR), tell(at=NOW + 2 * HOUR)) == (1, 0)
        seen(at=NOW + HOUR + RENOTIFY_AFTER - SECOND)
        assert tell(at=NOW + HOUR + RENOTIFY_AFTER) == 0
    assert caplog.messages == [f"Security alert {alert.pk}: replay, seen 5 times."]
    assert heard == [alert]
    assert [each.to for each in mail.outbox] == [TO]
    assert f"warning: replay, seen 5 times; alert {alert.pk}" in mail.outbox[0].body
    assert WHO not in mail.outbox[0].body + mail.outbox[0].subject + caplog.text
    found = SecurityAlert.objects.get()
    assert (found.count, found.first_seen, found.told_at) == (6, NOW, NOW + HOUR)
    assert [action for action, *_ in told()] == ["alert.raised"]


def test_alert_that_comes_again_after_a_day_is_told_of_again() -> None:
    seen()
    tell()
    seen(at=NOW + RENOTIFY_AFTER)
    assert tell(at=NOW + RENOTIFY_AFTER) == 1
    assert len(mail.outbox) == 2
    assert SecurityAlert.objects.get().count == 2


def test_many_alerts_are_one_mail_and_without_recipients_there_is_none() -> None:
    for number in range(30):
        seen(key=str(number))
    assert tell() == 30
    (message,) = mail.outbox
    assert message.subject == "30 security alerts of the portal"
    seen(key="another")
    assert send_due_alerts(recipients=(), now=NOW) == 1
    assert len(mail.outbox) == 1


def test_mail_that_no_server_takes_is_sent_later(settings: Any, heard: list[SecurityAlert]) -> None:
    seen()
    mail_by(settings, "smtp", host="127.0.0.1", port=1)
    assert tell() == 0
    mail_by(settings, "locmem")
    assert tell(at=NOW + SEND_RETRY_DELAY - SECOND) == 0
    assert tell(at=NOW + SEND_RETRY_DELAY) == 1
    assert (len(mail.outbox), len(heard)) == (1, 2)
    assert SecurityAlert.objects.get().told_at == NOW + SEND_RETRY_DELAY


def test_receiver_that_raises_keeps_nobody_else_from_being_told(heard: list[SecurityAlert]) -> None:
    def fail(**kwargs: Any) -> None:
        raise ValueError

    security_alert.connect(fail)
    try:
        seen()
        assert tell() == 1
    finally:
        security_alert.disconnect(fail)
    assert len(mail.outbox) == len(heard) == 1


def test_acknowledged_alert_is_closed_with_a_note_and_what_comes_again_opens_another() -> None:
    alert = seen()
    with pytest.raises(ValueError, match="note is empty"):
        acknowledge_alert(alert.pk, note=" ", origin=OFFICER, now=NOW)
    assert acknowledge_alert(alert.pk, note=" A penetration test. ", origin=OFFICER, now=NOW + HOUR)
    assert not acknowledge_alert(alert.pk, note="Another", origin=OFFICER, now=NOW + HOUR)
    alert.refresh_from_db()
    assert (alert.note, alert.acknowledged_by, alert.acknowledged_at) == ("A penetration test.", "7", NOW + HOUR)
    assert told()[1:] == [("alert.acknowledged", "7", f"SecurityAlert/{alert.pk}", {"rule": "replay"})]
    assert tell(at=NOW + HOUR) == 0
    again = seen(at=NOW + 2 * HOUR)
    assert (again.pk != alert.pk, again.count, tell(at=NOW + 2 * HOUR)) == (True, 1, 1)


@pytest.mark.parametrize("key", [WHO, ""], ids=["key", "kind"])
def test_muted_alert_is_counted_and_told_of_when_the_mute_is_over(key: str) -> None:
    pending = seen()
    muted = create_mute(kind="replay", key=key, until=NOW + DAY, note="Docket 5", origin=OFFICER, now=NOW)
    seen(count=2, at=NOW + HOUR)
    assert tell(at=NOW + HOUR) == 0
    seen(kind="token_forged", at=NOW + HOUR)
    seen(key="192.0.2.78", at=NOW + HOUR)
    assert tell(at=NOW + HOUR) == (2 if key else 1)
    seen(at=NOW + DAY)
    assert tell(at=NOW + DAY) == 1
    assert SecurityAlert.objects.get(pk=pending.pk).count == 4
    detail = {"rule": "replay", "until": (NOW + DAY).isoformat()}
    assert ("alert.muted", "7", f"AlertMute/{muted.pk}", detail) in told()
    assert "Docket" not in "".join(AuditOutbox.objects.values_list("event", flat=True))


def test_mute_that_somebody_ends_is_over() -> None:
    muted = create_mute(kind="replay", key="", until=NOW + DAY, note="Docket 5", origin=OFFICER, now=NOW)
    assert end_mute(muted.pk, origin=OFFICER, now=NOW + HOUR)
    assert not end_mute(muted.pk, origin=OFFICER, now=NOW + HOUR)
    seen(at=NOW + HOUR)
    assert tell(at=NOW + HOUR) == 1
    assert ("alert.unmuted", "7", f"AlertMute/{muted.pk}", {"rule": "replay"}) in told()


@pytest.mark.parametrize(
    "given",
    [
        {"until": NOW},
        {"until": NOW + alerts.MAX_MUTE_DURATION + SECOND},
        {"note": " "},
        {"kind": ""},
    ],
)
def test_mute_without_an_end_a_kind_or_a_reason_is_refused(given: dict[str, Any]) -> None:
    sound = {"kind": "replay", "key": "", "until": NOW + alerts.MAX_MUTE_DURATION, "note": "Docket 5"}
    with pytest.raises(ValueError, match="mute"):
        create_mute(**{**sound, **given}, origin=OFFICER, now=NOW)
    assert not AlertMute.objects.exists()
    create_mute(**sound, origin=OFFICER, now=NOW)
