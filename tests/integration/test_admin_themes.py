"""The admin with django-unfold. tests/unit/_internal/test_admin_pages.py has a faster test of every page."""

import pytest

from tests.support.unfold import run_with_unfold

BROWSER_TESTS = (
    *("admin_groups", "audit_admin", "audit_exports_admin", "bulk_admin", "claims_admin", "dashboard", "people_lists"),
    *("person_page", "reference_lookup", "refusal_pages", "ten_tasks"),
)


def test_each_page_and_action_is_permitted_to_the_same_groups_and_has_an_effect() -> None:
    paths = ("tests/integration/test_admin_groups.py", "tests/integration/test_admin_effects.py")
    summary = run_with_unfold(*paths)
    assert "passed" in summary
    assert "skipped" not in summary


@pytest.mark.browser
@pytest.mark.node
@pytest.mark.postgresql
def test_every_page_is_shown() -> None:
    """What does not fit is a fault in each theme."""
    assert "skipped" not in run_with_unfold("tests/browser/test_every_page.py")


@pytest.mark.browser
@pytest.mark.node
@pytest.mark.postgresql
def test_officers_use_the_pages() -> None:
    paths = [f"tests/browser/test_{name}.py" for name in BROWSER_TESTS]
    assert "passed" in run_with_unfold(*paths)
