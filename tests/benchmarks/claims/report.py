"""The results for scrubbing as a table and JSON, and the missed goals."""

from dataclasses import asdict
from typing import Any

from tests.benchmarks.claims.scrub_throughput import Scrubbing

LEAST = {"one": 0.3, "two": 0.5}
"""Minimum share of the rate of one bare DELETE of the same rows, by number of workers."""
MOST_GROWTH = 20e6
"""Bytes of additional memory allowed for ten times the rows."""
NAMES = {"bare": "one bare DELETE", "one": "one worker", "two": "two workers", "few": "one worker, a tenth of the rows"}


def rows(scrubbing: Scrubbing) -> dict[str, Any]:
    """Return the rows of the table; times in seconds, memory in bytes."""
    results = {name: getattr(scrubbing, name) for name in NAMES}
    by_name = {
        name: {**asdict(result), "rate": result.rate, "ratio": _ratio(scrubbing, name)}
        for name, result in results.items()
    }
    return {**by_name, "p99_alone": scrubbing.p99_alone}


def missed(scrubbing: Scrubbing) -> list[str]:
    """Return a line for each missed goal."""
    lines = [
        f"{NAMES[name]} at {_ratio(scrubbing, name):.2f} of a bare DELETE, the goal is {least}"
        for name, least in LEAST.items()
        if _ratio(scrubbing, name) < least
    ]
    if scrubbing.one.peak - scrubbing.few.peak > MOST_GROWTH:
        grown = (scrubbing.one.peak - scrubbing.few.peak) / 1e6
        lines.append(f"{grown:.0f} MB more for ten times the rows, the goal is {MOST_GROWTH / 1e6:.0f}")
    return lines


def table(scrubbing: Scrubbing) -> str:
    """Return a Markdown table."""
    lines = [["", "rows", "rows/s", "of bare", "peak MB", "reader's p99 ms"], ["---"] * 6]
    for name, title in NAMES.items():
        result = getattr(scrubbing, name)
        peak = f"{result.peak / 1e6:.0f}" if result.peak else ""
        rates = [f"{result.rate:,.0f}", f"{_ratio(scrubbing, name):.2f}"]
        lines.append([title, f"{result.rows:,}", *rates, peak, f"{result.p99 * 1000:.1f}"])
    lines.append(["reader only", "", "", "", "", f"{scrubbing.p99_alone * 1000:.1f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ratio(scrubbing: Scrubbing, name: str) -> float:
    return float(getattr(scrubbing, name).rate / scrubbing.bare.rate)
