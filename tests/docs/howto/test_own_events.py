"""The examples of the how-to on recording events of a host project work."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import transaction
from django.test import RequestFactory

from django_phi_oidc.audit.events import parse_event
from django_phi_oidc.audit.models import AuditEvent, AuditOutbox
from django_phi_oidc.extensions import delegation_sources
from tests.support.audit_fixtures import audit_database_away  # noqa: F401 -- fixtures

HOW_TO = (Path(__file__).parents[3] / "docs" / "how-to" / "record-your-own-events.md").read_text()


def example(name: str) -> dict[str, Any]:
    match = re.search(rf"<!-- tested: {name} -->\n```python\n(.*?)```", HOW_TO, re.DOTALL)
    assert match
    project: dict[str, Any] = {"__name__": "hospital"}
    exec(match[1], project)
    return project


class Chart:
    """Stands for a model instance of the project."""

    number = 4711

    def __init__(self, delete: Callable[[], None] = lambda: None) -> None:
        self.delete = delete


@pytest.fixture(autouse=True)
def registered() -> None:
    module = ModuleType("hospital")
    module.__path__ = [str(Path(__file__).parent)]
    example("register")["HospitalConfig"]("hospital", module).ready()


def a_request() -> Any:
    request = RequestFactory().get("/", REMOTE_ADDR="198.51.100.1")
    request.user = AnonymousUser()
    return request


@pytest.mark.django_db
def test_example_of_a_permit_is_recorded_before_it_is_granted() -> None:
    response = example("permit")["print_chart"](a_request(), 4711)
    assert (response.status_code, response.content) == (200, b"printed")
    event = AuditEvent.objects.get()
    assert (event.action, event.outcome, event.purpose, event.resource, event.client_ip) == (
        *("hospital.chart_printed", "success", "TREAT", "Chart/4711", "198.51.100.1"),
    )
    assert json.loads(event.detail) == {"pages": 3, "printer": "ward 4"}


def test_example_of_a_permit_without_the_audit_database_is_refused(
    audit_database_away: Callable[[], Any],
) -> None:
    with audit_database_away():
        response = example("permit")["print_chart"](a_request(), 4711)
    assert response.status_code == 503
    assert not AuditEvent.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_example_of_a_change_is_recorded_if_and_only_if_it_is_committed() -> None:
    archive = example("change")["archive_chart"]

    def fail() -> None:
        raise RuntimeError("an error of the host project")

    with pytest.raises(RuntimeError):
        archive(a_request(), Chart(fail))
    with transaction.atomic():
        archive(a_request(), Chart())
        transaction.set_rollback(True)
    assert (AuditOutbox.objects.count(), AuditEvent.objects.count()) == (0, 0)
    archive(a_request(), Chart())
    assert AuditEvent.objects.get().resource == "Chart/4711"


def test_host_project_event_waits_in_the_outbox(
    audit_database_away: Callable[[], Any],
) -> None:
    with audit_database_away():
        example("change")["archive_chart"](a_request(), Chart())
    assert parse_event(AuditOutbox.objects.get().event).event.action == "hospital.chart_archived"


def test_example_names_the_account_that_the_user_acts_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delegation_sources, "_items", [])
    module = ModuleType("portal")
    module.__path__ = [str(Path(__file__).parent)]
    example("delegation")["PortalConfig"]("portal", module).ready()
    (find_represented_account,) = delegation_sources
    assert find_represented_account(AnonymousUser(), {"acts_for": "7"}, a_request()) == "7"
    assert find_represented_account(AnonymousUser(), {}, a_request()) == ""
