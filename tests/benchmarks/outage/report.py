"""The times of the pages during an outage as a table and JSON, and the missed goals."""

from typing import Any

from tests.benchmarks.outage.page_load import PageTimes, percentile_95

MOST_OF_QUIET = 2.0
"""Maximum of the 95th percentile of a page, as a multiple of that without sign-ins."""
MOST_SECONDS = {"health": 1.0, "break-glass": 1.0}
"""Maximum of every response."""


def rows(times: PageTimes) -> list[dict[str, Any]]:
    """Return a row for each page; times in ms."""
    result = []
    for page, quiet in times.quiet.items():
        outage = times.outage[page]
        result.append(
            {
                "page": page,
                "quiet": percentile_95(quiet) * 1000,
                "outage": percentile_95(outage) * 1000,
                "ratio": percentile_95(outage) / percentile_95(quiet),
                "longest": max(outage) * 1000,
            }
        )
    return result


def missed(times: PageTimes) -> list[str]:
    """Return a line for each missed goal."""
    lines = []
    for row in rows(times):
        page, most = row["page"], MOST_SECONDS.get(row["page"])
        if row["ratio"] > MOST_OF_QUIET:
            lines.append(f"{page} at {row['ratio']:.1f} of its quiet time, the goal is {MOST_OF_QUIET}")
        if most is not None and row["longest"] > most * 1000:
            lines.append(f"{page} took {row['longest'] / 1000:.1f} s, the goal is {most} s")
    if set(times.sign_ins) != {503}:
        lines.append(f"sign-ins had the statuses {sorted(times.sign_ins)}, not 503 alone")
    return lines


def table(times: PageTimes) -> str:
    """Return the table as Markdown."""
    lines = [["page", "p95 quiet ms", "p95 outage ms", "ratio", "longest ms"], ["---"] * 5]
    for row in rows(times):
        values = [f"{row['quiet']:.0f}", f"{row['outage']:.0f}", f"× {row['ratio']:.2f}", f"{row['longest']:.0f}"]
        lines.append([row["page"], *values])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
