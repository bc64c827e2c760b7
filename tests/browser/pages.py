"""Operations on pages of the admin that several tests need."""

import re
import time
from collections.abc import Callable
from typing import Any

from django.test import Client

Browse = Callable[[Client], Any]
_LIST_SCROLLS = """() => {
  let node = document.querySelector("#result_list");
  while ((node = node?.parentElement)) {
    if (/auto|scroll/.test(getComputedStyle(node).overflowX) && node.scrollWidth > node.clientWidth) return true;
  }
  return false;
}"""


def fits_window(page: Any) -> bool:
    """Return whether the page needs no horizontal scrolling."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


def read_message(page: Any, text: str) -> str:
    """Wait for a message that contains the text, in the markup of any theme, and return the whole message."""
    message = page.get_by_role("listitem").filter(has_text=text).first
    message.wait_for()
    return str(message.inner_text())


def list_scrolls(page: Any) -> bool:
    """Return whether the table of a change list is wider than its frame: a column is cut off."""
    return bool(page.evaluate(_LIST_SCROLLS))


def open_list_above(page: Any, *titles: str) -> None:
    """Click the link to a list in the path at the top. titles: of the list, or of its model, which some themes name."""
    link = page.locator(".breadcrumbs a, #header-inner a").filter(has_text=re.compile("|".join(titles))).first
    # Outside of the window in a narrow header of django-unfold.
    link.dispatch_event("click")


def run_action(page: Any, model: str, action: str, message: str, row: Any = None) -> None:
    """Select one row of a change list, by default all rows, run the action, confirm it, and wait for its message.

    model: its label and name, as in "phi_oidc_scim.scimclient".
    """
    page.goto(f"/admin/{model.replace('.', '/')}/")
    page.locator("#action-toggle" if row is None else f"tbody input[value='{row}']").check()
    page.select_option("select[name=action]", action)
    page.click("button[name=index]")
    page.click("#content input[type=submit]")
    read_message(page, message)


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
