"""The results for the leak guard as a table and JSON, and the missed goals."""

from collections.abc import Mapping
from typing import Any

from tests.benchmarks.leak_guard.middleware_cost import KILOBYTES

MOST_MICROSECONDS = 100.0
"""Maximum that the guard adds to a request for a page of KILOBYTES."""
Guarding = Mapping[str, Mapping[str, float]]


def rows(guarding: Guarding) -> dict[str, Any]:
    """Return the rows of the table in µs."""
    return {"kilobytes": KILOBYTES, "pages": guarding}


def missed(guarding: Guarding) -> list[str]:
    """Return a line for each page that missed the goal."""
    return [
        f"the guard adds {took[kind]:.0f} µs to the page {page!r} ({kind}), the goal is {MOST_MICROSECONDS:.0f}"
        for page, took in guarding.items()
        for kind in ("sync", "async")
        if took[kind] > MOST_MICROSECONDS
    ]


def table(guarding: Guarding) -> str:
    """Return a Markdown table."""
    lines = [[f"page of {KILOBYTES} KB", "guard, sync µs", "guard, ASGI µs"], ["---"] * 3]
    lines += [[page, f"{took['sync']:.0f}", f"{took['async']:.0f}"] for page, took in guarding.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
