"""The deliveries in the admin: their states, and the request to deliver at once."""

import html
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc._internal import clock as package_clock
from django_phi_oidc.audit.events import Action
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.contrib.siem.models import SinkCursor
from django_phi_oidc.contrib.siem.tasks import deliver_to_due_sinks
from tests.support.audit_fixtures import audit_database_away  # noqa: F401 -- a fixture
from tests.support.officers import sign_in_officer
from tests.support.sealed_events import NOW, seal
from tests.unit.contrib.siem.test_tasks import declare

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
URL = "/admin/phi_oidc_siem/sinkcursor/"
DELIVER = f"{URL}siem/deliver/"
LATER = NOW + timedelta(minutes=1)


@pytest.fixture(autouse=True)
def _after_the_sealing(settings: Any, tmp_path: Path) -> Iterator[None]:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    declare(settings, siem={"type": "file", "path": tmp_path / "missing" / "log"})
    with package_clock.override_clock(lambda: LATER):
        yield


def read(client: Any, url: str = URL) -> str:
    response = client.get(url)
    assert response.status_code == 200
    return html.unescape(response.content.decode())


def test_page_names_the_cause_and_what_to_do() -> None:
    seal(3)
    deliver_to_due_sinks(seconds=5)
    text = read(sign_in_officer("view_sinkcursor"))
    assert "Failing since 2026-11-24 12:01:00 UTC" in text
    assert "The file cannot be written." in text
    assert "Check that the folder of the declared path exists on the worker" in text
    assert "<dt>Events behind</dt><dd>3</dd>" in text
    assert "<dt>Lag</dt><dd>1\xa0minute</dd>" in text
    assert "<dt>Last success (UTC)</dt><dd>never</dd>" in text
    assert "<dt>Next attempt (UTC)</dt><dd>2026-11-24 12:01:" in text


def test_page_of_a_healthy_sink_names_no_fault(tmp_path: Path) -> None:
    (tmp_path / "missing").mkdir()
    seal(3)
    deliver_to_due_sinks(seconds=5)
    text = read(sign_in_officer("view_sinkcursor"))
    assert '<p class="delivery-state">Up to date</p>' in text
    assert "What to do" not in text
    assert "<dt>Delivered events</dt><dd>3</dd>" in text
    assert "<dt>Last success (UTC)</dt><dd>2026-11-24 12:01:00</dd>" in text


@pytest.mark.parametrize("has_row", [True, False])
def test_page_says_that_no_worker_runs(has_row: bool) -> None:
    seal(3)
    if has_row:
        SinkCursor.objects.create(name="siem", due_at=NOW)
    with package_clock.override_clock(lambda: NOW + timedelta(hours=2)):
        text = read(sign_in_officer("view_sinkcursor"))
    assert ("no worker has attempted it since 2026-11-24 12:00:00 UTC" in text) == has_row
    assert "Check that Celery beat and a worker run" in text
    assert "<dt>Lag</dt><dd>2\xa0hours</dd>" in text
    assert SinkCursor.objects.exists() == has_row


def test_page_without_sinks_shows_how_to_declare_one(settings: Any) -> None:
    declare(settings)
    SinkCursor.objects.create(name="siem", due_at=NOW)
    text = read(sign_in_officer("view_sinkcursor"))
    assert "No sink is declared" in text
    assert "docs/how-to/siem.md" in text
    assert "Deliver now" not in text


def test_viewing_the_deliveries_is_not_recorded() -> None:
    seal(1)
    before = AuditEvent.objects.count()
    read(sign_in_officer("view_sinkcursor"))
    assert AuditEvent.objects.count() == before


def test_request_is_confirmed_recorded_and_makes_the_sink_due(tmp_path: Path) -> None:
    seal(3)
    deliver_to_due_sinks(seconds=5)
    assert SinkCursor.objects.get().due_at > LATER
    client = sign_in_officer("view_sinkcursor", "deliver_sinkcursor")
    assert f'href="{DELIVER}"' in read(client)
    assert "Deliver to siem now" in read(client, DELIVER)
    assert not AuditEvent.objects.filter(action=Action.DELIVERY_REQUESTED).exists()
    (tmp_path / "missing").mkdir()
    response = client.post(DELIVER, follow=True)
    assert response.redirect_chain == [(URL, 302)]
    assert "A delivery to siem was requested." in response.content.decode()
    (event,) = AuditEvent.objects.filter(action=Action.DELIVERY_REQUESTED)
    assert (event.outcome, event.actor, event.resource, event.detail) == (
        "success",
        str(client.user.pk),  # type: ignore[attr-defined]
        "Sink/siem",
        "{}",
    )
    assert SinkCursor.objects.get().due_at == LATER
    assert deliver_to_due_sinks(seconds=5)["siem"].accepted > 0


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("permissions", [("view_sinkcursor",), ("deliver_sinkcursor",), ()])
def test_request_without_both_permissions_is_refused_and_recorded(method: str, permissions: tuple[str, ...]) -> None:
    seal(1)
    SinkCursor.objects.create(name="siem", due_at=LATER + timedelta(hours=1))
    client = sign_in_officer(*permissions)
    assert getattr(client, method)(DELIVER).status_code == 403
    (event,) = AuditEvent.objects.filter(action=Action.ACCESS_DENIED)
    assert (event.reason, event.resource, event.detail) == (
        "permission_missing",
        "SinkCursor/siem",
        '{"page":"sinkcursor/deliver"}',
    )
    assert SinkCursor.objects.get().due_at > LATER
    assert not AuditEvent.objects.filter(action=Action.DELIVERY_REQUESTED).exists()


def test_page_without_permission_is_refused_and_recorded() -> None:
    assert sign_in_officer("deliver_sinkcursor").get(URL).status_code == 403
    assert AuditEvent.objects.filter(action=Action.ACCESS_DENIED, resource="SinkCursor").count() == 1
    assert "Deliver now" not in read(sign_in_officer("view_sinkcursor"))


@pytest.mark.parametrize("name", ["a%00b", "x" * 300, "https:admin@siem"])
def test_refusal_for_an_impossible_name_is_recorded_without_it(name: str) -> None:
    for url in (f"{URL}{name}/deliver/", DELIVER):
        assert sign_in_officer("view_sinkcursor").get(url).status_code == 403
    recorded = AuditEvent.objects.filter(action=Action.ACCESS_DENIED).values_list("resource", flat=True)
    assert list(recorded) == ["SinkCursor", "SinkCursor"], "no sink has a row yet"


def test_unknown_sink_is_not_found() -> None:
    client = sign_in_officer("view_sinkcursor", "deliver_sinkcursor")
    assert [client.get(f"{URL}other/deliver/").status_code, client.post(f"{URL}other/deliver/").status_code] == [
        404
    ] * 2
    assert not SinkCursor.objects.exists()


def test_nothing_is_requested_while_the_audit_log_is_unavailable(
    audit_database_away: Callable[[], Any],
) -> None:
    SinkCursor.objects.create(name="siem", due_at=LATER + timedelta(hours=1))
    client = sign_in_officer("view_sinkcursor", "deliver_sinkcursor")
    with audit_database_away():
        assert client.get(URL).status_code == 503
        assert client.post(DELIVER).status_code == 503
    assert SinkCursor.objects.get().due_at > LATER
    assert client.post(DELIVER).status_code == 302
