"""Operations on pages of the admin that several tests need."""

from collections.abc import Callable
from typing import Any

from django.test import Client

Browse = Callable[[Client], Any]


def fits_window(page: Any) -> bool:
    """Return whether the page needs no horizontal scrolling."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


def run_action(page: Any, model: str, action: str, row: Any = None) -> None:
    """Select one row of a change list, by default all rows, and run the action."""
    page.goto(f"/admin/django_phi_oidc/{model}/")
    page.locator("#action-toggle" if row is None else f"tbody input[value='{row}']").check()
    page.select_option("select[name=action]", action)
    page.click("button[name=index]")
    page.wait_for_selector(".messagelist")


def submit(page: Any, path: str = "") -> None:
    """Submit the form of the page, and wait for the redirect to path if there is one."""
    page.click("input[type=submit]")
    if path:
        page.wait_for_url(f"**{path}")
