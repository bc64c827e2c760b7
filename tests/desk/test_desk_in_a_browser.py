"""The desk as somebody at a browser has it, under the example's content security policy."""

from typing import Any

import pytest

from django_phi_oidc import clock
from tests.audit.test_admin_in_a_browser import is_as_wide_as_the_screen, officer, site  # noqa: F401 -- fixtures
from tests.desk.conftest import fill
from tests.parts import INTEROP

AXE = INTEROP / "node_modules" / "axe-core" / "axe.min.js"
LOOKS = [(320, "light"), (320, "dark"), (1280, "light"), (1280, "dark")]
pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])]


@pytest.mark.node
def test_desk_in_every_look_is_accessible_and_fits(officer: Any) -> None:  # noqa: F811
    fill(clock.now())
    officer.goto("/admin/")
    officer.evaluate(AXE.read_text())
    for width, scheme in LOOKS:
        officer.set_viewport_size({"width": width, "height": 3000})
        officer.emulate_media(color_scheme=scheme)
        officer.evaluate("Promise.all(document.getAnimations().map(each => each.finished))")
        assert is_as_wide_as_the_screen(officer)
        found = officer.evaluate("axe.run('.desk', {resultTypes: ['violations', 'incomplete']})")
        assert [rule["id"] for rule in found["violations"]] == []
        unsure = [rule["nodes"] for rule in found["incomplete"] if rule["id"] == "color-contrast"]
        assert [(node["html"], node["any"][0]["message"]) for nodes in unsure for node in nodes] == []


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
