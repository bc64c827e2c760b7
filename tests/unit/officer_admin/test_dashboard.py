"""The dashboard on the admin index page: correct numbers, permissions, few queries, and custom templates."""

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
from tests.support.audit_log import events
from tests.support.audit_tampering import CHECKPOINT, EVENT, is_postgresql, sql, without_triggers
from tests.support.dashboard_fixtures import (
    HOUR,
    NOW,
    STANDS,
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
    response = client.get("/admin/")
    assert response.status_code == 200
    return response.content.decode()


def numbers(html: str) -> dict[str, tuple[str, str]]:
    """Return the number and the link of each panel."""
    panels = re.findall(r'<dt><a href="([^"]+)">([^<]+)</a></dt>\s*<dd>([^<\s]+)', html)
    return {label: (number, unescape(url)) for url, label, number in panels}


def charts(html: str) -> list[list[int]]:
    """Return the counts in the tables, oldest hour first."""
    tables = re.findall(r"<details>.*?</details>", html, re.DOTALL)
    return [[int(count) for count in re.findall(r"<td>(\d+)", table)] for table in tables]


def test_numbers_match_the_pages_that_they_link_to() -> None:
    fill()
    client = officer(*MODELS)
    panels = numbers(page(client))
    assert {label: int(number) for label, (number, _) in panels.items()} == STANDS
    for label, (_, url) in panels.items():
        assert client.get(url).context["cl"].result_count == STANDS[label], label


def test_panels_that_need_action_are_marked() -> None:
    client = officer(*MODELS)
    assert "to do" not in page(client)
    fill()
    assert page(client).count("to do") == len([panel for panel in dashboard.PANELS if panel.needs_action])


@pytest.mark.parametrize("model", [*MODELS, *TRAIL])
def test_user_sees_permitted_numbers_and_no_others_are_queried(model: str) -> None:
    fill()
    with CaptureQueriesContext(connections[AUDIT_ALIAS]) as audit_queries:
        html = page(officer(model))
    assert set(numbers(html)) == {str(panel.label) for panel in dashboard.PANELS if panel.model_name == model}
    assert bool(audit_queries.captured_queries) == (model in TRAIL)
    assert ("by the hour" in html) == (model == "auditevent")
    assert ("Waiting to be sealed" in html) == (model == "auditcheckpoint")
    assert ("Last verification" in html) == (model in TRAIL)


def test_page_is_unchanged_without_permissions() -> None:
    fill()
    html = page(officer("user"))
    assert "desk" not in html
    assert "Users" in html


@pytest.mark.parametrize("is_staff", [True, False])
def test_page_is_for_staff_only(is_staff: bool) -> None:
    client = officer(*MODELS, *TRAIL, is_staff=is_staff)
    assert client.get("/admin/").status_code == (200 if is_staff else 302)
    assert Client().get("/admin/").status_code == 302


def test_charts_count_each_event_in_its_hour() -> None:
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


def test_counting_stops_at_the_maximum(monkeypatch: pytest.MonkeyPatch) -> None:
    fill()
    monkeypatch.setattr(dashboard, "MAX_COUNT", 2)
    monkeypatch.setattr(dashboard, "MAX_COUNT_PER_HOUR", 2)
    html = page(officer(*MODELS, *TRAIL))
    assert numbers(html)["Claims held"][0] == "2+"
    assert numbers(html)["Open alerts"][0] == "1"
    assert "2+ in 24 hours" in html
    assert re.search(r"Waiting to be sealed</dt><dd>2\+", html)


def test_number_of_queries_is_constant() -> None:
    client = officer(*MODELS, *TRAIL)
    query_counts = []
    for _ in range(2):
        with (
            CaptureQueriesContext(connections["default"]) as default_queries,
            CaptureQueriesContext(connections[AUDIT_ALIAS]) as audit_queries,
        ):
            page(client)
        counted = [query for query in default_queries if "COUNT(*)" in query["sql"]]
        query_counts.append((len(counted), len(audit_queries)))
        fill()
    assert query_counts == [(1, 5), (1, 5)]


def test_outage_of_the_audit_database_is_shown_next_to_the_other_numbers(
    audit_database_away: Callable[[], Any],
) -> None:
    fill()
    client = officer("oidcsession", "auditevent")
    assert "by the hour" in page(client)
    with audit_database_away():
        html = page(client)
    assert "The audit log is not available" in html
    assert "by the hour" not in html
    assert numbers(html)["Live sessions"][0] == "2"


def test_damaged_audit_log_is_reported() -> None:
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


def test_viewing_the_numbers_is_not_recorded() -> None:
    fill()
    before = AuditEvent.objects.count()
    page(officer(*MODELS, *TRAIL))
    assert AuditEvent.objects.count() == before


@pytest.mark.parametrize("first", ["django.contrib.admin", "django_phi_oidc"])
def test_dashboard_appears_in_any_order_of_apps(first: str, settings: Any) -> None:
    others = [app for app in settings.INSTALLED_APPS if app != first]
    settings.INSTALLED_APPS = [first, *others]
    html = page(officer("oidcsession"))
    assert numbers(html)["Live sessions"][0] == "0"
    assert html.count('id="content-main"') == 1


def test_index_template_of_the_project_is_kept(settings: Any, tmp_path: Path) -> None:
    (tmp_path / "admin").mkdir()
    (tmp_path / "admin" / "index.html").write_text(
        '{% extends "admin/base_site.html" %}{% block content %}Hospital page{% endblock %}'
    )
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [str(tmp_path)]}]
    html = page(officer("oidcsession"))
    assert "Hospital page" in html
    assert "Live sessions" in html


def test_custom_index_template_may_include_the_dashboard(settings: Any, tmp_path: Path) -> None:
    site = AdminSite(name="admin")
    site.index_template = "own.html"
    install_dashboard(site)
    (tmp_path / "own.html").write_text('Own: {% include "admin/django_phi_oidc/desk.html" %}')
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [str(tmp_path)]}]
    request = RequestFactory().get("/admin/")
    request.user = officer("oidcsession").get("/admin/").wsgi_request.user
    response: Any = site.index(request)
    html = response.render().content.decode()
    assert html.startswith("Own:")
    assert numbers(html)["Live sessions"][0] == "0"
