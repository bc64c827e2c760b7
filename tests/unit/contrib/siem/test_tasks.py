import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import current_app
from django.core.exceptions import ImproperlyConfigured

from django_phi_oidc import schedule
from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.contrib.siem.models import SinkCursor
from django_phi_oidc.contrib.siem.tasks import deliver, deliver_to_due_sinks, get_declared_sinks
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.sealed_events import NOW, seal

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


def declare(settings: Any, **sinks: Any) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SIEM=sinks)


def test_deliver_without_sinks_does_nothing() -> None:
    seal(1)
    deliver()
    assert not SinkCursor.objects.exists()


def test_deliver_reaches_all_declared_sinks(settings: Any, tmp_path: Path) -> None:
    declare(
        settings,
        json={"type": "file", "path": tmp_path / "json"},
        fhir={"type": "file", "path": tmp_path / "fhir", "format": "fhir"},
    )
    seal(3)
    deliver()
    assert [len((tmp_path / name).read_text().splitlines()) for name in ("json", "fhir")] == [4, 4]
    assert json.loads((tmp_path / "fhir").read_text().splitlines()[0])["resourceType"] == "AuditEvent"


def test_unavailable_sink_does_not_delay_the_others(settings: Any, tmp_path: Path) -> None:
    declare(
        settings,
        away={"type": "file", "path": tmp_path / "missing" / "log"},
        here={"type": "file", "path": tmp_path / "log"},
    )
    seal(1)
    results = deliver_to_due_sinks(seconds=5)
    assert (results["away"].fault, results["here"].is_caught_up) == ("file_unwritable", True)
    assert list(deliver_to_due_sinks(seconds=5)) == ["here", "away"]


def test_lagging_sink_raises_an_alert(settings: Any, tmp_path: Path) -> None:
    declare(settings, away={"type": "file", "path": tmp_path / "missing" / "log", "lag_alert": 60})
    seal(1)
    with clock.override_clock(lambda: NOW + timedelta(seconds=59)):
        deliver()
    assert not AuditEvent.objects.filter(action=Action.ALERT_RAISED).exists()
    with clock.override_clock(lambda: NOW + timedelta(seconds=61)):
        deliver()
        deliver()
    (alert,) = AuditEvent.objects.filter(action=Action.ALERT_RAISED)
    assert (json.loads(alert.detail)["rule"], alert.reason) == ("delivery_lag", "file_unwritable")


def test_invalid_sink_declaration_is_refused(settings: Any) -> None:
    declare(settings, siem={"type": "smoke"})
    with pytest.raises(ImproperlyConfigured, match=r"'SIEM'\]\['siem'\]\['type'\]"):
        get_declared_sinks()
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SIEM=["siem"])
    with pytest.raises(ImproperlyConfigured, match="dictionary"):
        get_declared_sinks()


def test_task_is_registered_and_scheduled() -> None:
    assert "phi_oidc.deliver" in current_app.tasks
    assert "phi_oidc.deliver" in schedule.beat_schedule()
