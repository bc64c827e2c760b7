"""Security alerts in the admin: permissions to view, acknowledge and mute, and no others."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import parse_event
from django_phi_oidc.audit.models import AuditEvent, AuditOutbox
from django_phi_oidc.contrib.monitoring.models import AlertMute, SecurityAlert
from tests.support.audit_log import NOW
from tests.support.officers import sign_in_officer

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])
ALERTS, MUTES = "/admin/phi_oidc_monitoring/securityalert/", "/admin/phi_oidc_monitoring/alertmute/"
ACKNOWLEDGE = ("view_securityalert", "acknowledge_securityalert")
MUTE = ("view_alertmute", "add_alertmute")
Officer = Callable[..., Client]


@pytest.fixture(autouse=True)
def _at_noon(settings: Any) -> Any:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    settings.TIME_ZONE = "UTC"
    with clock.override_clock(lambda: NOW):
        yield


@pytest.fixture
def officer() -> Officer:
    """Return a function that signs in a staff member with these permissions."""
    return sign_in_officer


def create_alert(**fields: Any) -> SecurityAlert:
    values = {"kind": "replay", "key": "192.0.2.77", "severity": "warning", "count": 3, "due_at": NOW}
    return SecurityAlert.objects.create(**{**values, "first_seen": NOW, "last_seen": NOW, **fields})


def recorded() -> list[tuple[str, str]]:
    outbox = [parse_event(row.event).event for row in AuditOutbox.objects.all()]
    return [(event.action, event.actor) for event in (*outbox, *AuditEvent.objects.filter(action__startswith="alert."))]


def page_of(alert: SecurityAlert) -> str:
    return f"{ALERTS}{alert.pk}/change/"


def test_alerts_are_visible_only_with_the_permission(officer: Officer) -> None:
    alert = create_alert()
    assert officer().get(ALERTS).status_code == 403
    viewer = officer("view_securityalert")
    assert "192.0.2.77" in viewer.get(ALERTS).content.decode()
    page = viewer.get(page_of(alert)).content.decode()
    assert "192.0.2.77" in page
    assert 'name="note"' not in page
    assert MUTES not in page, "no link without the permission"
    assert viewer.post(page_of(alert), {"note": "Nothing."}).status_code == 403
    assert SecurityAlert.objects.get().acknowledged_at is None


def test_permitted_user_acknowledges_an_alert_with_a_note(officer: Officer) -> None:
    alert = create_alert()
    acting = officer(*ACKNOWLEDGE)
    assert 'name="note"' in acting.get(page_of(alert)).content.decode()
    for note in ("", "  "):
        assert acting.post(page_of(alert), {"note": note}).status_code == 200
    assert SecurityAlert.objects.get().acknowledged_at is None
    assert acting.post(page_of(alert), {"note": "A drill.", "kind": "other", "count": 0}).status_code == 302
    alert.refresh_from_db()
    assert (alert.note, alert.acknowledged_by, alert.due_at) == ("A drill.", str(acting.user.pk), None)
    assert (alert.kind, alert.count) == ("replay", 3)
    assert recorded() == [("alert.acknowledged", str(acting.user.pk))]
    assert acting.post(page_of(alert), {"note": "Another."}).status_code == 403
    assert not LogEntry.objects.exists(), "the audit log has the event"


@pytest.mark.parametrize("path", ["add/", "1/delete/"])
def test_alerts_cannot_be_added_or_deleted(path: str, officer: Officer) -> None:
    create_alert(pk=1)
    assert officer(is_superuser=True).get(ALERTS + path).status_code == 403


def test_alerts_are_found_by_kind_key_severity_and_state(officer: Officer) -> None:
    first, second = create_alert(), create_alert(kind="token_forged", key="192.0.2.78", severity="critical")
    closed = create_alert(key="192.0.2.79", acknowledged_at=NOW)
    viewer = officer("view_securityalert")

    def list_pks(**query: str) -> set[int]:
        return {alert.pk for alert in viewer.get(ALERTS, query).context["cl"].result_list}

    assert list_pks() == {first.pk, second.pk, closed.pk}
    assert list_pks(state="open") == {first.pk, second.pk}
    assert list_pks(state="acknowledged") == {closed.pk}
    assert list_pks(severity="critical") == list_pks(q="token_forged") == list_pks(q="192.0.2.78") == {second.pk}
    assert list_pks(q="192.0.2") == set()


def test_mute_is_created_from_an_alert_and_ended_by_permitted_users(officer: Officer) -> None:
    acting = officer(*ACKNOWLEDGE, *MUTE)
    add_url = f"{MUTES}add/?kind=replay&key=192.0.2.77"
    assert add_url.replace("&", "&amp;") in acting.get(page_of(create_alert())).content.decode()
    assert 'value="192.0.2.77"' in acting.get(add_url).content.decode()
    # Before Django 6.1, only these labels distinguish the inputs.
    assert re.findall(r'name="until_\d"[^>]*aria-label="(\w+)"', acting.get(add_url).content.decode()) == [
        "Date",
        "Time",
    ]
    form = {"kind": "replay", "key": "192.0.2.77", "note": "A drill"}
    for day in ("2026-11-23", "2027-11-24"):
        assert acting.post(f"{MUTES}add/", {**form, "until_0": day, "until_1": "00:00"}).status_code == 200
    assert not AlertMute.objects.exists()
    assert acting.post(f"{MUTES}add/", {**form, "until_0": "2026-11-26", "until_1": "00:00"}).status_code == 302
    muted = AlertMute.objects.get()
    assert (muted.kind, muted.key, muted.muted_by, muted.muted_at) == ("replay", "192.0.2.77", str(acting.user.pk), NOW)
    assert SecurityAlert.objects.get().due_at is None
    end = {"action": "end", "_selected_action": [str(muted.pk)], "post": "yes"}
    acting.post(MUTES, end)
    assert AlertMute.objects.get().lifted_at is None
    ending = officer("view_alertmute", "change_alertmute")
    assert ending.get(f"{MUTES}add/").status_code == 403
    assert ending.post(MUTES, end, follow=True).status_code == 200
    assert AlertMute.objects.get().lifted_at == NOW
    assert sorted(recorded()) == [("alert.muted", str(acting.user.pk)), ("alert.unmuted", str(ending.user.pk))]


def test_mutes_cannot_be_changed_or_deleted(officer: Officer) -> None:
    muted = AlertMute.objects.create(kind="replay", until=NOW + timedelta(days=1), note="A drill", muted_at=NOW)
    acting = officer(is_superuser=True)
    assert acting.post(f"{MUTES}{muted.pk}/change/", {"kind": "other"}).status_code == 403
    assert acting.get(f"{MUTES}{muted.pk}/delete/").status_code == 403
    assert acting.get(f"{MUTES}{muted.pk}/change/").status_code == 200
