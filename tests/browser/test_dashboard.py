"""The dashboard of the admin, in Chromium under the content security policy of the example project."""

from typing import Any

import pytest

from django_phi_oidc._internal import clock
from tests.browser.pages import fits_window
from tests.support.accessibility import faults
from tests.support.dashboard_fixtures import fill

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])]


@pytest.mark.node
def test_dashboard_is_accessible_and_fits_in_each_width_and_color_scheme(superuser_page: Any) -> None:
    fill(clock.now())
    superuser_page.goto("/admin/")
    assert faults(superuser_page, within=".desk", sure=True, height=3000) == []


def test_keyboard_opens_the_table_of_a_chart_and_the_rows_of_a_count(superuser_page: Any) -> None:
    fill(clock.now())
    superuser_page.goto("/admin/")
    chart = superuser_page.get_by_role("img", name="Sign-ins by the hour")
    assert chart.locator("rect").count() == 1
    assert chart.locator("rect").evaluate("bar => bar.getBoundingClientRect().height") > 50
    table = superuser_page.get_by_text("Sign-ins as a table")
    table.focus()
    assert table.evaluate("summary => getComputedStyle(summary).outlineStyle") == "solid"
    superuser_page.keyboard.press("Enter")
    assert superuser_page.locator(".desk details[open] tbody tr").count() == 24
    assert fits_window(superuser_page)
    superuser_page.get_by_role("link", name="Claims overdue").focus()
    superuser_page.keyboard.press("Enter")
    superuser_page.wait_for_url("**end=overdue**")
    assert superuser_page.locator("#result_list tbody tr").count() == 2
