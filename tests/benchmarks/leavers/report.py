"""The latencies as a table and JSON, and the missed goals."""

from collections.abc import Sequence
from typing import Any

from tests.benchmarks.leavers.latency import PER_SECOND, Latencies

MOST_SECONDS = 1.0
"""The goal for the 99th percentile."""


def rows(results: Sequence[Latencies]) -> dict[str, Any]:
    """Return the rows of the table; times in seconds."""
    return {
        f"{item.round_trip * 1000:.0f} ms": {
            "count": len(item.seconds),
            "median": item.get_percentile(50),
            "p99": item.get_percentile(99),
            "longest": item.seconds[-1],
            "late": item.late,
        }
        for item in results
    }


def missed(results: Sequence[Latencies]) -> list[str]:
    """Return a line for each missed goal."""
    lines = []
    for item in results:
        where = f"at a round trip of {item.round_trip * 1000:.0f} ms"
        if (p99 := item.get_percentile(99)) >= MOST_SECONDS:
            lines.append(f"p99 of leavers {p99:.2f} s {where}, the goal is {MOST_SECONDS:.0f}")
        if item.late:
            lines.append(f"{item.late} tokens of leavers were not revoked at once {where}")
    return lines


def table(results: Sequence[Latencies]) -> str:
    """Return a Markdown table."""
    lines = [["round trip", "leavers", "a second", "median ms", "p99 ms", "longest ms", "tokens late"], ["---"] * 7]
    for name, row in rows(results).items():
        times = [f"{row[key] * 1000:,.0f}" for key in ("median", "p99", "longest")]
        lines.append([name, f"{row['count']:,}", str(PER_SECOND), *times, str(row["late"])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
