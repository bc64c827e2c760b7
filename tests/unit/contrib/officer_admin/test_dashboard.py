"""The overview on the admin index page: correct numbers, permissions, few queries, and custom templates."""

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
from django_phi_oidc.contrib.common.overview_parts import overview_panels
from django_phi_oidc.contrib.officer_admin import dashboard
from django_phi_oidc.contrib.officer_admin.hourly_counts import update_counts
from django_phi_oidc.contrib.officer_admin.models import HourlyCount
from django_phi_oidc.contrib.officer_admin.site import install_dashboard
from django_phi_oidc.contrib.officer_admin.trends import PERIODS
from django_phi_oidc.contrib.siem.models import SinkCursor
from django_phi_oidc.contrib.siem.tasks import deliver_to_due_sinks
from tests.support.audit_log import events, sealed
from tests.support.audit_tampering import CHECKPOINT, EVENT, is_postgresql, sql, without_triggers
from tests.support.dashboard_fixtures import (
    HOUR,
    NOW,
    STANDS,
    fill,
    fill_month,
    officer,
)
from tests.support.phi_oidc_settings import override_phi_oidc

MODELS = ("oidcsession", "pendingrevocation", "storedclaim", "securityalert", "emergencyaccess")
TRAIL = ("auditevent", "auditcheckpoint")
CHARTS = {
    "auditevent": {"Sign-ins", "Refusals by reason"},
    "oidcsession": {"Live sessions"},
    "pendingrevocation": {"Revocations pending"},
    "storedclaim": {"Claims held by age"},
    "securityalert": {"Open alerts"},
    "auditcheckpoint": {"Events not sealed"},
}
OTHER_TILES = {
    "Sign-ins": {"auditevent"},
    "Refusals": {"auditevent"},
    "Delivery to the SIEM": {"sinkcursor"},
    "Events not sealed": {"auditcheckpoint"},
    "Last verification": {"auditevent", "auditcheckpoint"},
}
pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.usefixtures("at_half_past"),
]


@pytest.fixture(autouse=True)
def _plain_http(settings: Any) -> None:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False


def page(client: Client, query: str = "") -> str:
    response = client.get(f"/admin/{query}")
    assert response.status_code == 200
    return response.content.decode()


def tiles(html: str) -> dict[str, tuple[str, str, str]]:
    """Return the value, the link and the note of each tile."""
    value = r"<dd[^>]*>([^<]+?)(?: <span.*)?</dd>"
    note = r'(?:<dd class="overview-note">([^<]*)</dd>)?'
    pattern = rf'<dt><a href="([^"]+)">([^<]+)</a></dt>\s*{value}\s*{note}'
    return {label: (value, unescape(url), note) for url, label, value, note in re.findall(pattern, html)}


def numbers(html: str) -> dict[str, tuple[str, str]]:
    """Return the number and the link of each panel."""
    labels = {str(panel.label) for panel in overview_panels} | {"Claims overdue"}
    return {label: (value, url) for label, (value, url, _) in tiles(html).items() if label in labels}


def charts(html: str) -> dict[str, list[str]]:
    """Return the title of each chart, and the last column of its table, oldest bar first."""
    figures = re.findall(r"<figcaption><a [^>]*>([^<]+)</a>.*?<tbody>(.*?)</tbody>", html, re.DOTALL)
    return {title: re.findall(r"<td>([\d–]+)</td></tr>", table) for title, table in figures}


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
    assert page(client).count("to do") == len([panel for panel in overview_panels if panel.needs_action]) + 1


@pytest.mark.parametrize("model", [*MODELS, *TRAIL, "sinkcursor"])
def test_user_sees_permitted_numbers_and_no_others_are_queried(model: str) -> None:
    fill()
    with CaptureQueriesContext(connections[AUDIT_ALIAS]) as audit_queries:
        html = page(officer(model))
    panels = {str(panel.label) for panel in overview_panels if panel.model_label.endswith(f".{model}")}
    assert set(numbers(html)) == panels | ({"Claims overdue"} if model == "storedclaim" else set())
    assert set(charts(html)) == CHARTS.get(model, set())
    assert (tiles(html).keys() & OTHER_TILES.keys()) == {
        name for name, models in OTHER_TILES.items() if model in models
    }
    # No sink is declared, so the deliveries need no query either.
    assert bool(audit_queries.captured_queries) == (model in TRAIL)
    assert ("Was yesterday unusual?" in html) == (model == "auditevent")


def test_page_is_unchanged_without_permissions() -> None:
    fill()
    html = page(officer("user"))
    assert "overview" not in html
    assert "Users" in html


@pytest.mark.parametrize("is_staff", [True, False])
def test_page_is_for_staff_only(is_staff: bool) -> None:
    client = officer(*MODELS, *TRAIL, is_staff=is_staff)
    assert client.get("/admin/").status_code == (200 if is_staff else 302)
    assert Client().get("/admin/").status_code == 302


def test_charts_count_each_event_in_its_hour() -> None:
    fill()
    start = NOW.replace(minute=0)
    events(1, action=Action.LOGIN_SUCCEEDED, detail={}, at=start)
    oldest = start - 23 * HOUR
    events(1, action=Action.LOGIN_SUCCEEDED, detail={}, at=oldest - timedelta(milliseconds=1))
    events(4, action=Action.ACCESS_DENIED, outcome="failure", reason="permission_missing", detail={}, at=oldest)
    HourlyCount.objects.all().delete()
    update_counts(now=NOW)
    client = officer("auditevent")
    html = page(client)
    assert charts(html) == {
        "Sign-ins": [*["0"] * 21, "3", "0", "1"],
        "Refusals by reason": ["4", *["0"] * 21, "2", "0"],
    }
    assert "4 in total (peak: 3 in one hour)" in html
    assert "The highest bar is 4, from 2026-11-23 17:00 UTC." in html
    assert (tiles(html)["Sign-ins"][0], tiles(html)["Refusals"][0]) == ("4", "6")
    for label, count in (("Sign-ins", 4), ("Refusals", 6)):
        assert len(client.get(tiles(html)[label][1]).context["rows"]) == count
    html = page(client, "?period=7d")
    assert charts(html)["Sign-ins"][-8:] == ["–", "–", "1", "0", "0", "0", "4", "–"]
    assert (tiles(html)["Sign-ins"][0], tiles(html)["Sign-ins"][2]) == ("5", "in 7 days")


@pytest.mark.parametrize("period", ["24h", "7d", "30d", "", "1y", "'"])
def test_period_is_chosen_by_a_link(period: str) -> None:
    fill_month()
    html = page(officer("auditevent", "oidcsession"), f"?period={period}")
    known = period if period in PERIODS else "24h"
    assert re.findall(r'<a href="\?period=(\w+)#overview-trends" aria-current="true">', html) == [known]
    assert len(charts(html)["Sign-ins"]) == PERIODS[known].bar_count


def test_yesterday_is_compared_with_earlier_days() -> None:
    fill()
    client = officer("auditevent")
    assert "Yesterday was not counted completely" in page(client)
    fill_month()
    html = page(client)
    assert "Refusals yesterday (Monday): " in html
    assert html.count("overview-unusual") == 1
    assert "Unusually many." in html


def test_page_says_that_nothing_was_counted_yet() -> None:
    client = officer("auditevent", "oidcsession")
    assert page(client).count("Nothing was counted yet") == 3
    update_counts(now=NOW)
    assert "Nothing was counted yet" not in page(client)


def test_counting_stops_at_the_maximum(monkeypatch: pytest.MonkeyPatch) -> None:
    fill()
    monkeypatch.setattr(dashboard, "MAX_COUNT", 2)
    html = page(officer(*MODELS, *TRAIL))
    assert numbers(html)["Claims held"][0] == "2+"
    assert numbers(html)["Open alerts"][0] == "1"
    assert tiles(html)["Events not sealed"][0] == "2+"


def test_number_of_queries_is_constant() -> None:
    client = officer(*MODELS, *TRAIL, "sinkcursor")
    query_counts = []
    for _ in range(2):
        with (
            CaptureQueriesContext(connections["default"]) as default_queries,
            CaptureQueriesContext(connections[AUDIT_ALIAS]) as audit_queries,
        ):
            page(client)
        counted = [query for query in default_queries if "COUNT(*)" in query["sql"] or "hourlycount" in query["sql"]]
        query_counts.append((len(counted), len(audit_queries)))
        fill()
        fill_month()
    # The numbers, the overdue claims, the charts, yesterday; the verification, the checkpoint and the unsealed events.
    assert query_counts == [(4, 3), (4, 3)]


def test_outage_of_the_audit_database_is_shown_next_to_the_other_numbers(
    audit_database_away: Callable[[], Any],
) -> None:
    fill()
    client = officer("oidcsession", "auditevent", "sinkcursor")
    assert "Last verification" in tiles(page(client))
    with audit_database_away():
        html = page(client)
    assert "The audit log is not available" in html
    assert "Last verification" not in tiles(html)
    assert numbers(html)["Live sessions"][0] == "2"
    assert charts(html)["Sign-ins"].count("3") == 1


def test_damaged_audit_log_is_reported() -> None:
    fill()
    client = officer(*TRAIL)
    assert tiles(page(client))["Last verification"][::2] == ("No findings", "just now")
    with without_triggers():
        sql(f"UPDATE {EVENT} SET reason = 'altered' WHERE action = 'audit.verified'")
    assert tiles(page(client))["Last verification"][0] == "Never"
    with without_triggers():
        sql(f"UPDATE {CHECKPOINT} SET sealed_at = %s", "infinity" if is_postgresql() else "2026-13-01 00:00:00")
    html = page(client)
    assert tiles(html)["Events not sealed"][0] == "Unreadable"
    assert "was altered and is no event any more" in html


@pytest.mark.parametrize(
    ("detail", "outcome", "value", "is_marked"),
    [
        ({"tree_size": 3, "findings": 0}, "success", "No findings", False),
        ({"tree_size": 3, "findings": 1}, "failure", "1 finding", True),
        ({"tree_size": 3, "findings": 2}, "failure", "2 findings", True),
        ({}, "error", "Failed", True),
    ],
)
def test_tile_shows_the_result_of_the_last_verification(
    detail: dict[str, Any], outcome: str, value: str, is_marked: bool
) -> None:
    (event,) = events(1, action=Action.AUDIT_VERIFIED, outcome=outcome, detail=detail, at=NOW - 2 * HOUR)
    html = page(officer("auditevent"))
    assert tiles(html)["Last verification"] == (
        value,
        f"/admin/phi_oidc_audit/auditevent/{event}/change/",
        "2\xa0hours ago",
    )
    assert ("to do" in html) == is_marked
    assert tiles(page(officer("auditcheckpoint")))["Last verification"][1] == "/admin/phi_oidc_audit/auditcheckpoint/"


def test_log_lag_is_marked_only_if_events_wait_for_long() -> None:
    sealed(1, at=NOW - HOUR)
    client = officer("auditcheckpoint")
    html = page(client)
    assert tiles(html)["Events not sealed"][::2] == ("0", "last sealed: 59\xa0minutes ago")
    assert "to do" not in html
    events(2, at=NOW)
    html = page(client)
    assert tiles(html)["Events not sealed"][0] == "2"
    assert "to do" in html
    sealed(1, at=NOW - timedelta(minutes=2))
    events(1, at=NOW)
    assert "to do" not in page(client)


def test_tile_of_the_deliveries_shows_the_worst_sink(settings: Any, tmp_path: Path) -> None:
    client = officer("sinkcursor")
    assert tiles(page(client))["Delivery to the SIEM"] == (
        "None",
        "/admin/phi_oidc_siem/sinkcursor/",
        "no sink is declared",
    )
    sinks = {name: {"type": "file", "path": tmp_path / name} for name in ("one", "two")}
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SIEM=sinks)
    sealed(2, at=NOW - timedelta(seconds=20))
    deliver_to_due_sinks(seconds=5)
    html = page(client)
    assert tiles(html)["Delivery to the SIEM"][::2] == ("Up to date", "2 sinks")
    assert "to do" not in html
    SinkCursor.objects.filter(name="two").update(last_fault="http_401", attempts=3)
    html = page(client)
    assert tiles(html)["Delivery to the SIEM"][::2] == ("Failing", "two: failing")
    assert "to do" in html
    SinkCursor.objects.filter(name="one").update(last_fault="log_forked", attempts=3)
    assert tiles(page(client))["Delivery to the SIEM"][::2] == ("Stopped", "one: stopped, two: failing")


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
    (tmp_path / "own.html").write_text('Own: {% include "admin/phi_oidc_officer_admin/overview.html" %}')
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [str(tmp_path)]}]
    request = RequestFactory().get("/admin/")
    request.user = officer("oidcsession").get("/admin/").wsgi_request.user
    response: Any = site.index(request)
    html = response.render().content.decode()
    assert html.startswith("Own:")
    assert numbers(html)["Live sessions"][0] == "0"
