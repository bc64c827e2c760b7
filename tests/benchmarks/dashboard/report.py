"""What was measured of the pages, as a table, as JSON, and as a verdict on the aims."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tests.benchmarks.dashboard.page_times import Looked

MOST_MS = {"desk": 150.0}
MOST_MS_OF_A_LIST = 60.0
MOST_QUERIES = 8
"""Of a list."""
DEEP = 1.5
"""Times the first page, at most: what differs is noise."""


def rows(results: Mapping[str, Looked]) -> dict[str, Any]:
    """Return the table's rows; times in milliseconds."""
    return {page: asdict(looked) for page, looked in results.items()}


def missed(results: Mapping[str, Looked]) -> list[str]:
    """Return a line for each aim that was missed. Of Django's own pages there is none."""
    lines = []
    for page, looked in results.items():
        most = MOST_MS.get(page, MOST_MS_OF_A_LIST)
        if page.startswith("stock"):
            continue
        if looked.ms >= most:
            lines.append(f"{page} takes {looked.ms:.0f} ms, and the aim is {most:.0f}")
        if page != "desk" and looked.queries > MOST_QUERIES:
            lines.append(f"{page} takes {looked.queries} queries, and the aim is {MOST_QUERIES}")
    if results["three quarters down"].ms > DEEP * results["first page"].ms:
        lines.append("a page far down takes longer than the first one")
    return lines


def table(results: Mapping[str, Looked]) -> str:
    """Return a Markdown table."""
    lines = [["", "ms", "CPU ms", "queries"], ["---"] * 4]
    lines += [
        [page, f"{looked.ms:,.0f}", f"{looked.cpu:,.0f}", str(looked.queries)] for page, looked in results.items()
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
