"""The desk as somebody at a browser has it, under the example's content security policy."""

from typing import Any

import pytest

from django_phi_oidc._internal import clock
from tests.browser.test_audit_admin import browse, expected, is_as_wide_as_the_screen, officer, site  # noqa: F401 -- fixtures
from tests.support.accessibility import faults
from tests.support.dashboard_fixtures import fill

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])]


@pytest.mark.node
def test_desk_in_every_look_is_accessible_and_fits(officer: Any) -> None:  # noqa: F811
    fill(clock.now())
    officer.goto("/admin/")
    assert faults(officer, within=".desk", sure=True, height=3000) == []


def test_officer_goes_by_keyboard_from_a_number_to_its_rows_and_opens_a_table(officer: Any) -> None:  # noqa: F811
    fill(clock.now())
    officer.goto("/admin/")
    chart = officer.get_by_role("img", name="Sign-ins by the hour")
    assert chart.locator("rect").count() == 1
    assert chart.locator("rect").evaluate("bar => bar.getBoundingClientRect().height") > 50
    table = officer.get_by_text("Sign-ins as a table")
    table.focus()
    assert table.evaluate("summary => getComputedStyle(summary).outlineStyle") == "solid"
    officer.keyboard.press("Enter")
    assert officer.locator(".desk details[open] tbody tr").count() == 24
    assert is_as_wide_as_the_screen(officer)
    officer.get_by_role("link", name="Claims overdue").focus()
    officer.keyboard.press("Enter")
    officer.wait_for_url("**end=overdue**")
    assert officer.locator("#result_list tbody tr").count() == 2
