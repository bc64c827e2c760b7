"""The results for the pages as a table and JSON, and the missed goals."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tests.benchmarks.dashboard.page_times import PageCost

MOST_MS = 60.0
MOST_QUERIES = {"search for a name": 10}
"""A search by name also looks for accounts."""
MOST_QUERIES_OF_A_LIST = 8
DEEP = 1.5
"""Maximum, as a multiple of the first page, to allow for noise."""


def rows(results: Mapping[str, PageCost]) -> dict[str, Any]:
    """Return the rows of the table; times in milliseconds."""
    return {page: asdict(cost) for page, cost in results.items()}


def missed(results: Mapping[str, PageCost]) -> list[str]:
    """Return a line for each missed goal. The stock pages of Django have no goals."""
    lines = []
    for page, cost in results.items():
        if page.startswith("stock"):
            continue
        if cost.ms >= MOST_MS:
            lines.append(f"{page} takes {cost.ms:.0f} ms, the goal is {MOST_MS:.0f}")
        most_queries = MOST_QUERIES.get(page, MOST_QUERIES_OF_A_LIST)
        if not page.startswith("overview") and cost.queries > most_queries:
            lines.append(f"{page} takes {cost.queries} queries, the goal is {most_queries}")
    if results["three quarters down"].ms > DEEP * results["first page"].ms:
        lines.append("a page far down takes longer than the first one")
    return lines


def table(results: Mapping[str, PageCost]) -> str:
    """Return a Markdown table."""
    lines = [["", "ms", "CPU ms", "queries"], ["---"] * 4]
    lines += [[page, f"{cost.ms:,.0f}", f"{cost.cpu:,.0f}", str(cost.queries)] for page, cost in results.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
