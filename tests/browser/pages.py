"""Operations on pages of the admin that several tests need."""

import time
from collections.abc import Callable
from typing import Any

from django.test import Client

Browse = Callable[[Client], Any]


def fits_window(page: Any) -> bool:
    """Return whether the page needs no horizontal scrolling."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


def run_action(page: Any, model: str, action: str, row: Any = None) -> None:
    """Select one row of a change list, by default all rows, run the action, and confirm it."""
    page.goto(f"/admin/django_phi_oidc/{model}/")
    page.locator("#action-toggle" if row is None else f"tbody input[value='{row}']").check()
    page.select_option("select[name=action]", action)
    page.click("button[name=index]")
    page.click("#content input[type=submit]")
    page.wait_for_selector(".messagelist")


def submit(page: Any, path: str = "") -> None:
    """Submit the form of the page, and wait for the redirect to path if there is one."""
    page.click("input[type=submit]")
    if path:
        page.wait_for_url(f"**{path}")


class Hand:
    """What a person does on a page, counted. A click: a link, a button, a choice or a box. A field: a text typed in."""

    def __init__(self, page: Any) -> None:
        self.page = page
        page.set_viewport_size({"width": 1280, "height": 900})
        self.clicks = self.fields = 0
        self._started_at = time.monotonic()

    def open(self, path: str) -> None:
        """Open the page where a task begins, which is not counted: the clock starts when it is loaded."""
        self.page.goto(path)
        self.clicks = self.fields = 0
        self._started_at = time.monotonic()

    def click(self, target: Any) -> None:
        self.clicks += 1
        self._find(target).click()

    def choose(self, target: Any, label: str) -> None:
        """Choose an option of a select."""
        self.clicks += 1
        self._find(target).select_option(label=label)

    def fill(self, target: Any, text: str) -> None:
        """Type a text, or pick a file or time."""
        self.fields += 1
        self._find(target).fill(text)

    def pick(self, target: Any, path: Any) -> None:
        """Pick a file."""
        self.fields += 1
        self._find(target).set_input_files(path)

    def download(self, target: Any, path: Any) -> Any:
        """Click, and save the file that follows."""
        with self.page.expect_download() as started:
            self.click(target)
        started.value.save_as(path)
        return path

    def finish(self) -> dict[str, float]:
        """Return the figures of the task."""
        seconds = time.monotonic() - self._started_at
        return {"clicks": self.clicks, "fields": self.fields, "seconds": round(seconds, 1)}

    def _find(self, target: Any) -> Any:
        return self.page.locator(target).first if isinstance(target, str) else target.first
