"""The periodic tasks, rules of a project, and the examples of the how-to page."""

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import current_app
from django.core import mail
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.recorder import raise_audit_alert
from django_phi_oidc.contrib.monitoring import engine
from django_phi_oidc.contrib.monitoring.models import SecurityAlert, WatchCursor
from django_phi_oidc.contrib.monitoring.rules import get_builtin_rules
from django_phi_oidc.contrib.monitoring.tasks import get_declared_rules, watch
from tests.support.audit_log import NOW, events, sealed

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
HOW_TO = (Path(__file__).parents[4] / "docs" / "how-to" / "detect-anomalies.md").read_text()
A_RULE = "tests.unit.contrib.monitoring.test_tasks.A_RULE"


def block(name: str) -> list[str]:
    return re.findall(rf"<!-- tested: {name} -->\n```python\n(.*?)```", HOW_TO, re.DOTALL)


@pytest.fixture
def hospital(settings: Any, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Apply the declarations of the how-to page."""
    module = ModuleType("hospital.watching")
    exec("\n".join(block("rules")), module.__dict__)
    monkeypatch.setitem(sys.modules, "hospital", ModuleType("hospital"))
    monkeypatch.setitem(sys.modules, "hospital.watching", module)
    namespace = {"PHI_OIDC": dict(settings.PHI_OIDC)}
    exec("\n".join(block("settings")), namespace)
    settings.PHI_OIDC = namespace["PHI_OIDC"]
    return module


def test_every_code_block_of_the_page_is_tested() -> None:
    assert HOW_TO.count("```python") == len(block("rules")) + len(block("settings")) == 3


def test_project_rules_are_used_and_recipients_get_mail(hospital: ModuleType) -> None:
    rules = get_declared_rules()
    assert hospital.night_export in rules
    assert [rule for rule in rules if rule.kind == "refusals_by_address"] == [hospital.refusals]
    assert len(rules) == len(get_builtin_rules()) + 1
    refused = {"action": "login.refused", "reason": "provider_error", "subject": "", "purpose": "", "detail": {}}
    with clock.override_clock(lambda: NOW):
        sealed(99, **refused)
        watch()
        assert {alert.kind for alert in SecurityAlert.objects.all()} == {"refusals_by_person"}
        assert [message.to for message in mail.outbox] == [["privacy@hospital.example"]]
        sealed(1, **refused)
        watch()
        watch()
    assert SecurityAlert.objects.filter(kind="refusals_by_address").exists()
    assert len(mail.outbox) == 2


def test_watch_reads_the_sealed_log_and_reports_missing_sealing(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed(5)
    events(1)
    with clock.override_clock(lambda: NOW):
        current_app.tasks["phi_oidc.watch"]()
    assert WatchCursor.objects.get().tree_size == 5
    assert not SecurityAlert.objects.exists()
    with clock.override_clock(lambda: NOW + 2 * engine.sequencer.MAX_SEALING_DELAY):
        watch()
    assert [alert.kind for alert in SecurityAlert.objects.all()] == ["sealing_lag"]
    assert SecurityAlert.objects.get().notified_at is not None


def test_alert_event_of_the_sealer_raises_an_alert() -> None:
    raise_audit_alert("sealing_refused", now=NOW)
    sealed(1)
    watch()
    assert [alert.kind for alert in SecurityAlert.objects.exclude(kind="sealing_lag")] == ["sealing_refused"]


@pytest.mark.parametrize(
    ("option", "wrong", "right"),
    [
        ("ANOMALY_RULES", "hospital.watching.refusals", ["hospital.watching.refusals"]),
        ("ANOMALY_RULES", ["hospital.watching.nowhere"], []),
        ("ANOMALY_RULES", ["hospital.nowhere.at_all"], []),
        ("ANOMALY_RULES", ["hospital.watching.timedelta"], []),
        ("SECURITY_CONTACTS", "privacy@hospital.example", ["privacy@hospital.example"]),
        ("SECURITY_CONTACTS", ["privacy"], ()),
    ],
)
def test_check_names_an_invalid_option(
    option: str, wrong: Any, right: Any, settings: Any, hospital: ModuleType
) -> None:
    def list_messages() -> list[str]:
        return [message.msg for message in run_checks() if message.id == "django_phi_oidc.E002"]

    settings.PHI_OIDC = {**settings.PHI_OIDC, option: right}
    assert list_messages() == []
    settings.PHI_OIDC = {**settings.PHI_OIDC, option: wrong}
    (message,) = list_messages()
    assert message.startswith(f"PHI_OIDC['{option}']")
    if option == "ANOMALY_RULES":
        with pytest.raises(ImproperlyConfigured):
            watch()
