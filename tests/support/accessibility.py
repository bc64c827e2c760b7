"""How a page is looked at in Chromium: narrow and light, wide and dark."""

import os
from typing import Any

from tests.support.external_tools import INTEROP

AXE = INTEROP / "node_modules" / "axe-core" / "axe.min.js"
NARROW, WIDE = (320, "light"), (1280, "dark")
OTHERS = (320, "dark"), (1280, "light")
"""For people's eyes alone: what contrasts is of the scheme, and what fits is of the width."""


def faults(page: Any, *, within: str = "html", sure: bool = False, height: int = 800, picture: str = "") -> list[Any]:
    """Return what is wrong with the page: it is wider than the window, or axe-core finds something.

    within: a selector of what is ours. sure: a contrast that axe-core can't judge is wrong, too. height: of the window,
    in pixels. picture: a name; the page is photographed where the environment names a folder by PHI_TEST_PICTURES.
    """
    folder = os.environ.get("PHI_TEST_PICTURES") if picture else None
    page.evaluate(AXE.read_text())
    found: list[Any] = []
    for width, scheme in (NARROW, WIDE, *(OTHERS if folder else ())):
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)
        # The admin's links fade from one colour into the other.
        page.evaluate("Promise.all(document.getAnimations().map(each => each.finished))")
        if (wide := page.evaluate("document.documentElement.scrollWidth")) > width:
            found.append((width, f"is {wide} wide"))
        options: dict[str, Any] = {"resultTypes": ["violations", "incomplete"], "preload": False}
        if (width, scheme) != NARROW:
            options["runOnly"] = ["color-contrast"]
        told = page.evaluate("([within, options]) => axe.run(within, options)", [within, options])
        unsure = [rule for rule in told["incomplete"] if sure and rule["id"] == "color-contrast"]
        found += [
            (width, scheme, rule["id"], rule["impact"], [node["html"] for node in rule["nodes"]])
            for rule in (*told["violations"], *unsure)
        ]
        if folder:
            page.screenshot(path=f"{folder}/{picture}-{width}-{scheme}.png", full_page=True)
    return found
