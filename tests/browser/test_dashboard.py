"""The overview and the deliveries in the admin, in Chromium under the policy of the example project."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc._internal import clock
from django_phi_oidc.contrib.siem.models import SinkCursor
from tests.browser.pages import fits_window, read_message, submit
from tests.support.accessibility import faults
from tests.support.dashboard_fixtures import fill, fill_month
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])]
THEME = os.environ.get("PHI_TEST_THEME", "")
DELIVERIES = "/admin/phi_oidc_siem/sinkcursor/"


@pytest.fixture
def _failing_sink(settings: Any, tmp_path: Path) -> None:
    now = clock.now()
    sinks = {
        "siem": {"type": "syslog", "host": "siem.example.test", "format": "cef"},
        "archive": {"type": "file", "path": tmp_path / "log"},
    }
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SIEM=sinks)
    failed = {"attempts": 4, "last_fault": "transport_unreachable", "failing_since": now - timedelta(hours=3)}
    SinkCursor.objects.create(name="siem", due_at=now + timedelta(minutes=3), **failed)
    SinkCursor.objects.create(name="archive", due_at=now, tree_size=3, checkpoint_size=3, delivered_at=now)


@pytest.mark.node
@pytest.mark.usefixtures("_failing_sink")
@pytest.mark.parametrize("period", ["24h", "7d", "30d"])
def test_overview_is_accessible_and_fits_in_each_width_and_color_scheme(superuser_page: Any, period: str) -> None:
    fill(clock.now())
    fill_month(clock.now())
    superuser_page.goto(f"/admin/?period={period}")
    picture = f"overview-{period}"
    assert faults(superuser_page, within=".overview", sure=True, height=3000, picture=picture) == []
    superuser_page.set_viewport_size({"width": 390, "height": 844})
    assert fits_window(superuser_page)


@pytest.mark.node
@pytest.mark.usefixtures("_failing_sink")
def test_deliveries_are_accessible_and_fit_in_each_width_and_color_scheme(superuser_page: Any, settings: Any) -> None:
    fill(clock.now())
    for path, picture in (("", "deliveries"), ("siem/deliver/", "deliver-now")):
        superuser_page.goto(f"{DELIVERIES}{path}")
        assert faults(superuser_page, within="#content", sure=True, picture=picture) == []
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SIEM={})
    superuser_page.goto(DELIVERIES)
    assert faults(superuser_page, within="#content", sure=True, picture="no-deliveries") == []


def test_tiles_stand_in_two_rows_and_charts_have_the_full_width(superuser_page: Any) -> None:
    fill(clock.now())
    superuser_page.set_viewport_size({"width": 1280, "height": 900})
    superuser_page.goto("/admin/")
    boxes = superuser_page.locator(".overview-tiles > div").evaluate_all(
        "tiles => tiles.map(tile => { const box = tile.getBoundingClientRect(); return [box.top, box.right]; })"
    )
    assert len(boxes) == 12
    assert len({top for top, _ in boxes}) == 2
    assert max(right for _, right in boxes) > 1200


@pytest.mark.skipif(THEME == "unfold", reason="its index has no recent actions beside the lists")
def test_lists_of_the_index_and_recent_actions_stand_side_by_side(superuser_page: Any) -> None:
    superuser_page.set_viewport_size({"width": 1280, "height": 900})
    superuser_page.goto("/admin/")
    lists, recent = (superuser_page.locator(part).bounding_box() for part in ("#content-main", "#content-related"))
    assert lists["y"] == recent["y"]
    assert lists["x"] + lists["width"] <= recent["x"]


def test_keyboard_opens_the_table_of_a_chart_and_the_rows_of_a_count(superuser_page: Any) -> None:
    fill(clock.now())
    superuser_page.goto("/admin/")
    chart = superuser_page.get_by_role("img", name="Sign-ins, 24 hours")
    assert chart.locator("path[class^=overview-part]").count() == 1
    assert chart.locator("path[class^=overview-part]").evaluate("bar => bar.getBoundingClientRect().height") > 50
    table = superuser_page.get_by_text("Sign-ins as a table")
    table.focus()
    assert table.evaluate("summary => getComputedStyle(summary).outlineStyle") == "solid"
    superuser_page.keyboard.press("Enter")
    assert superuser_page.locator(".overview details[open] tbody tr").count() == 24
    assert fits_window(superuser_page)
    superuser_page.get_by_role("link", name="Claims overdue").focus()
    superuser_page.keyboard.press("Enter")
    superuser_page.wait_for_url("**end=overdue**")
    assert superuser_page.locator("#result_list tbody tr").count() == 2


def test_period_is_chosen_without_a_script(superuser_page: Any) -> None:
    fill_month(clock.now())
    superuser_page.goto("/admin/")
    superuser_page.get_by_role("link", name="7 days").click()
    superuser_page.wait_for_url("**period=7d**")
    assert superuser_page.get_by_role("img", name="Sign-ins, 7 days").is_visible()
    assert superuser_page.locator(".overview-unusual").inner_text().endswith("Unusually many.")


@pytest.mark.usefixtures("_failing_sink")
def test_officer_finds_out_why_the_siem_gets_nothing_and_delivers_now(superuser_page: Any) -> None:
    fill(clock.now())
    superuser_page.goto("/admin/")
    superuser_page.get_by_role("link", name="Delivery to the SIEM").click()
    superuser_page.wait_for_url(f"**{DELIVERIES}")
    text = superuser_page.locator("section.delivery").first.inner_text()
    assert "The collector cannot be reached." in text
    assert "Check that the collector runs" in text
    superuser_page.get_by_role("link", name="Deliver now").first.click()
    submit(superuser_page, DELIVERIES)
    read_message(superuser_page, "A delivery to siem was requested.")
    assert SinkCursor.objects.get(name="siem").due_at <= clock.now()
