"""The times of the pages with a slow provider as a table and JSON, and the missed goals."""

from collections.abc import Sequence
from typing import Any

from tests.benchmarks.outage.page_load import PageTimes, percentile_95

MOST_OF_QUIET = 2.0
"""Maximum of the 95th percentile of a page, as a multiple of that without requests of strangers."""
UNNOTICED_MS = 25
"""A shorter time meets the goal: eight more requests a second cost that much CPU time, even if nothing waits."""
MOST_SECONDS = {"health": 1.0, "break-glass": 1.0}
"""Maximum of every response."""
EXPECTED_STATUSES = {200, 302, 400, 403, 503}
"""Of strangers: no internal error."""


def rows(measured: Sequence[PageTimes]) -> list[dict[str, Any]]:
    """Return a row for each page of each case; times in ms."""
    result = []
    for times in measured:
        for page, quiet in times.quiet.items():
            slow = times.slow[page]
            result.append(
                {
                    "endpoint": times.endpoint,
                    "delay": times.delay_seconds,
                    "page": page,
                    "quiet": percentile_95(quiet) * 1000,
                    "slow": percentile_95(slow) * 1000,
                    "ratio": percentile_95(slow) / percentile_95(quiet),
                    "longest": max(slow) * 1000,
                }
            )
    return result


def missed(measured: Sequence[PageTimes]) -> list[str]:
    """Return a line for each missed goal."""
    lines = []
    for row in rows(measured):
        case = f"{row['page']}, {row['endpoint']} {row['delay']} s"
        most = MOST_SECONDS.get(row["page"])
        if row["ratio"] > MOST_OF_QUIET and row["slow"] > UNNOTICED_MS:
            lines.append(f"{case}: {row['ratio']:.1f} of its quiet time, the goal is {MOST_OF_QUIET}")
        if most is not None and row["longest"] > most * 1000:
            lines.append(f"{case}: took {row['longest'] / 1000:.1f} s, the goal is {most} s")
    for times in measured:
        case = f"strangers, {times.endpoint} {times.delay_seconds} s"
        unexpected = set(times.strangers) - EXPECTED_STATUSES
        if unexpected:
            lines.append(f"{case}: had the statuses {sorted(unexpected)}")
        if not times.strangers:
            lines.append(f"{case}: none was answered")
    return lines


def table(measured: Sequence[PageTimes]) -> str:
    """Return the table as Markdown."""
    lines = [["slow", "delay s", "page", "p95 quiet ms", "p95 slow ms", "ratio", "longest ms"], ["---"] * 7]
    for row in rows(measured):
        lines.append(
            [
                row["endpoint"],
                str(row["delay"]),
                row["page"],
                f"{row['quiet']:.0f}",
                f"{row['slow']:.0f}",
                f"× {row['ratio']:.2f}",
                f"{row['longest']:.0f}",
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
