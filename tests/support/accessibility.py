"""Accessibility and width of a page in Chromium, narrow and light, and wide and dark."""

import os
from typing import Any

from tests.support.external_tools import INTEROP

AXE = INTEROP / "node_modules" / "axe-core" / "axe.min.js"
NARROW, WIDE = (320, "light"), (1280, "dark")
OTHERS = (320, "dark"), (1280, "light")
"""Only for screenshots: the contrast depends on the scheme alone, and the fit on the width alone."""


def faults(page: Any, *, within: str = "html", sure: bool = False, height: int = 800, picture: str = "") -> list[Any]:
    """Return the faults of the page: it is wider than the window, or axe-core reports a violation.

    within: a selector of the part to check. sure: a contrast that axe-core cannot compute is a fault too. height: of
    the window, in pixels. picture: the name of the screenshots, which are saved in the folder PHI_TEST_PICTURES.
    """
    folder = os.environ.get("PHI_TEST_PICTURES") if picture else None
    page.evaluate(AXE.read_text())
    found: list[Any] = []
    for width, scheme in (NARROW, WIDE, *(OTHERS if folder else ())):
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)
        if os.environ.get("PHI_TEST_THEME") == "unfold":
            # Its script does this when a page is loaded.
            page.evaluate("dark => document.documentElement.classList.toggle('dark', dark)", scheme == "dark")
        # The admin's links change color with a transition.
        page.evaluate("Promise.allSettled(document.getAnimations().map(animation => animation.finished))")
        if (wide := page.evaluate("document.documentElement.scrollWidth")) > width:
            found.append((width, f"is {wide} wide"))
        options: dict[str, Any] = {"resultTypes": ["violations", "incomplete"], "preload": False}
        if (width, scheme) != NARROW:
            options["runOnly"] = ["color-contrast"]
        results = page.evaluate("([within, options]) => axe.run(within, options)", [within, options])
        undecided = [rule for rule in results["incomplete"] if sure and rule["id"] == "color-contrast"]
        found += [
            (width, scheme, rule["id"], rule["impact"], [node["html"] for node in rule["nodes"]])
            for rule in (*results["violations"], *undecided)
        ]
        if folder:
            page.screenshot(path=f"{folder}/{picture}-{width}-{scheme}.png", full_page=True)
    return found
