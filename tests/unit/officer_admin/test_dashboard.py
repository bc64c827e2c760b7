"""The desk on the admin's first page: the numbers are right, for those who may, by a few queries, in every project."""

import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin import AdminSite
from django.db import connections
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext

from django_phi_oidc.audit.events import Action
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.router import AUDIT_ALIAS
from django_phi_oidc.officer_admin import dashboard
from django_phi_oidc.officer_admin.site import install_dashboard
from tests.support.audit_fixtures import audit_database_away  # noqa: F401 -- fixtures
from tests.support.audit_log import events
from tests.support.audit_tampering import CHECKPOINT, EVENT, is_postgresql, sql, without_triggers
from tests.support.dashboard_fixtures import (
    HOUR,
    NOW,
    STANDS,
    at_half_past,  # noqa: F401 -- fixtures
    fill,
    officer,
)

MODELS = ("oidcsession", "pendingrevocation", "storedclaim", "securityalert", "emergencyaccess")
TRAIL = ("auditevent", "auditcheckpoint")
pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.usefixtures("at_half_past"),
]


@pytest.fixture(autouse=True)
def _plain_http(settings: Any) -> None:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False


def page(client: Client) -> str:
    answer = client.get("/admin/")
    assert answer.status_code == 200
    return answer.content.decode()


def numbers(html: str) -> dict[str, tuple[str, str]]:
    """Return what the panels say, and where each leads."""
    found = re.findall(r'<dt><a href="([^"]+)">([^<]+)</a></dt>\s*<dd>([^<\s]+)', html)
    return {label: (said, unescape(url)) for url, label, said in found}


def charts(html: str) -> list[list[int]]:
    """Return what the tables say, the oldest hour first."""
    tables = re.findall(r"<details>.*?</details>", html, re.DOTALL)
    return [[int(each) for each in re.findall(r"<td>(\d+)", table)] for table in tables]


def test_numbers_are_those_of_the_pages_that_they_lead_to() -> None:
    fill()
    client = officer(*MODELS)
    found = numbers(page(client))
    assert {label: int(said) for label, (said, _) in found.items()} == STANDS
    for label, (_, url) in found.items():
        assert client.get(url).context["cl"].result_count == STANDS[label], label


def test_work_is_marked_where_there_is_some_and_not_where_there_is_none() -> None:
    client = officer(*MODELS)
    assert "to do" not in page(client)
    fill()
    assert page(client).count("to do") == len([panel for panel in dashboard.PANELS if panel.needs_action])


@pytest.mark.parametrize("model", [*MODELS, *TRAIL])
def test_each_sees_what_they_may_view_and_nothing_else_is_asked_for(model: str) -> None:
    fill()
    with CaptureQueriesContext(connections[AUDIT_ALIAS]) as of_trail:
        html = page(officer(model))
    assert set(numbers(html)) == {str(panel.label) for panel in dashboard.PANELS if panel.model_name == model}
    assert bool(of_trail.captured_queries) == (model in TRAIL)
    assert ("by the hour" in html) == (model == "auditevent")
    assert ("Waiting to be sealed" in html) == (model == "auditcheckpoint")
    assert ("Last verification" in html) == (model in TRAIL)


def test_page_is_as_it_was_for_whoever_may_view_nothing() -> None:
    fill()
    html = page(officer("user"))
    assert "desk" not in html
    assert "Users" in html


@pytest.mark.parametrize("is_staff", [True, False])
def test_nobody_but_the_staff_gets_to_the_page(is_staff: bool) -> None:
    client = officer(*MODELS, *TRAIL, is_staff=is_staff)
    assert client.get("/admin/").status_code == (200 if is_staff else 302)
    assert Client().get("/admin/").status_code == 302


def test_charts_have_each_event_in_its_hour() -> None:
    fill()
    start = NOW.replace(minute=0)
    events(1, action=Action.LOGIN_SUCCEEDED, detail={}, at=start - timedelta(milliseconds=1))
    events(1, action=Action.LOGIN_SUCCEEDED, detail={}, at=start)
    oldest = start - 23 * HOUR
    events(1, action=Action.LOGIN_SUCCEEDED, detail={}, at=oldest - timedelta(milliseconds=1))
    events(4, action=Action.ACCESS_DENIED, outcome="failure", reason="permission_missing", detail={}, at=oldest)
    html = page(officer("auditevent"))
    assert charts(html) == [[*[0] * 21, 3, 1, 1], [4, *[0] * 21, 2, 0]]
    assert "5 in 24 hours" in html
    assert "The maximum is 4, in the hour from 17:00 UTC." in html


def test_no_more_is_counted_than_anybody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    fill()
    monkeypatch.setattr(dashboard, "MAX_COUNT", 2)
    monkeypatch.setattr(dashboard, "MAX_COUNT_PER_HOUR", 2)
    html = page(officer(*MODELS, *TRAIL))
    assert numbers(html)["Claims held"][0] == "2+"
    assert numbers(html)["Open alerts"][0] == "1"
    assert "2+ in 24 hours" in html
    assert re.search(r"Waiting to be sealed</dt><dd>2\+", html)


def test_desk_takes_few_queries_however_much_there_is() -> None:
    client = officer(*MODELS, *TRAIL)
    taken = []
    for _ in range(2):
        with (
            CaptureQueriesContext(connections["default"]) as of_desk,
            CaptureQueriesContext(connections[AUDIT_ALIAS]) as of_trail,
        ):
            page(client)
        counted = [each for each in of_desk if "COUNT(*)" in each["sql"]]
        taken.append((len(counted), len(of_trail)))
        fill()
    assert taken == [(1, 5), (1, 5)]


def test_trail_that_is_away_is_said_to_be_and_the_rest_is_shown(audit_database_away: Callable[[], Any]) -> None:
    fill()
    client = officer("oidcsession", "auditevent")
    assert "by the hour" in page(client)
    with audit_database_away():
        html = page(client)
    assert "The audit log is not available" in html
    assert "by the hour" not in html
    assert numbers(html)["Live sessions"][0] == "2"


def test_damaged_trail_is_told_of_and_breaks_nothing() -> None:
    fill()
    client = officer(*TRAIL)
    html = page(client)
    assert ("has not been verified yet" in html, "was altered" in html) == (False, False)
    with without_triggers():
        sql(f"UPDATE {EVENT} SET reason = 'altered' WHERE action = 'audit.verified'")
    assert "has not been verified yet" in page(client)
    with without_triggers():
        sql(f"UPDATE {CHECKPOINT} SET sealed_at = %s", "infinity" if is_postgresql() else "2026-13-01 00:00:00")
    html = page(client)
    assert "was altered and is no event any more" in html
    assert "by the hour" in html


def test_numbers_are_no_look_at_the_trail() -> None:
    fill()
    before = AuditEvent.objects.count()
    page(officer(*MODELS, *TRAIL))
    assert AuditEvent.objects.count() == before


@pytest.mark.parametrize("first", ["django.contrib.admin", "django_phi_oidc"])
def test_desk_is_there_in_whatever_order_apps_are(first: str, settings: Any) -> None:
    others = [each for each in settings.INSTALLED_APPS if each != first]
    settings.INSTALLED_APPS = [first, *others]
    html = page(officer("oidcsession"))
    assert numbers(html)["Live sessions"][0] == "0"
    assert html.count('id="content-main"') == 1


def test_project_s_own_first_page_keeps_what_it_has(settings: Any, tmp_path: Path) -> None:
    (tmp_path / "admin").mkdir()
    (tmp_path / "admin" / "index.html").write_text(
        '{% extends "admin/base_site.html" %}{% block content %}The hospital’s own{% endblock %}'
    )
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [str(tmp_path)]}]
    html = page(officer("oidcsession"))
    assert "The hospital’s own" in html
    assert "Live sessions" in html


def test_site_with_a_first_page_of_its_own_keeps_it_and_may_include_the_desk(settings: Any, tmp_path: Path) -> None:
    site = AdminSite(name="admin")
    site.index_template = "own.html"
    install_dashboard(site)
    (tmp_path / "own.html").write_text('Own: {% include "admin/django_phi_oidc/desk.html" %}')
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [str(tmp_path)]}]
    request = RequestFactory().get("/admin/")
    request.user = officer("oidcsession").get("/admin/").wsgi_request.user
    answer: Any = site.index(request)
    html = answer.render().content.decode()
    assert html.startswith("Own:")
    assert numbers(html)["Live sessions"][0] == "0"
