"""What was measured of scrubbing, as a table, as JSON, and as a verdict on the aims."""

from dataclasses import asdict
from typing import Any

from tests.benchmarks.claims.scrub_throughput import Scrubbing

LEAST = {"one": 0.3, "two": 0.5}
"""Of the rate of one bare DELETE of the same rows, with so many workers."""
MOST_GROWTH = 20e6
"""Bytes of memory, that ten times the rows may take beyond."""
NAMES = {"bare": "one bare DELETE", "one": "one worker", "two": "two workers", "few": "one worker, a tenth of the rows"}


def rows(scrubbing: Scrubbing) -> dict[str, Any]:
    """Return the table's rows; times in seconds, memory in bytes."""
    of = {name: getattr(scrubbing, name) for name in NAMES}
    told = {name: {**asdict(each), "rate": each.rate, "ratio": _ratio(scrubbing, name)} for name, each in of.items()}
    return {**told, "p99_alone": scrubbing.p99_alone}


def missed(scrubbing: Scrubbing) -> list[str]:
    """Return a line for each aim that was missed."""
    lines = [
        f"{NAMES[name]} at {_ratio(scrubbing, name):.2f} of a bare DELETE, and the aim is {least}"
        for name, least in LEAST.items()
        if _ratio(scrubbing, name) < least
    ]
    if scrubbing.one.peak - scrubbing.few.peak > MOST_GROWTH:
        grown = (scrubbing.one.peak - scrubbing.few.peak) / 1e6
        lines.append(f"{grown:.0f} MB more for ten times the rows, and the aim is {MOST_GROWTH / 1e6:.0f}")
    return lines


def table(scrubbing: Scrubbing) -> str:
    """Return a Markdown table."""
    lines = [["", "rows", "rows/s", "of bare", "peak MB", "reader's p99 ms"], ["---"] * 6]
    for name, title in NAMES.items():
        each = getattr(scrubbing, name)
        peak = f"{each.peak / 1e6:.0f}" if each.peak else ""
        rates = [f"{each.rate:,.0f}", f"{_ratio(scrubbing, name):.2f}"]
        lines.append([title, f"{each.rows:,}", *rates, peak, f"{each.p99 * 1000:.1f}"])
    lines.append(["nobody", "", "", "", "", f"{scrubbing.p99_alone * 1000:.1f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ratio(scrubbing: Scrubbing, name: str) -> float:
    return float(getattr(scrubbing, name).rate / scrubbing.bare.rate)
