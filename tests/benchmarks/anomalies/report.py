"""What was measured of the anomaly rules, as a table, as JSON, and as a verdict on the aims."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tests.benchmarks.anomalies.rule_throughput import Judged

LEAST_RATE = {"week": 20_000, "flood": 15_000}
"""Events judged in a second. Each of a flood concerns five rules, and most of the week's one or none."""


def rows(results: Mapping[str, Judged]) -> dict[str, Any]:
    """Return the table's rows; times in seconds, memory in bytes."""
    return {
        trail: {**asdict(judged), "rate": judged.rate, "of_floor": judged.floor / judged.wall}
        for trail, judged in results.items()
    }


def missed(results: Mapping[str, Judged]) -> list[str]:
    """Return a line for each aim that was missed."""
    lines = [
        f"{judged.rate:,.0f} events/s of a {trail}, and the aim is {LEAST_RATE[trail]:,}"
        for trail, judged in results.items()
        if judged.rate < LEAST_RATE[trail]
    ]
    if alerts := results["week"].alerts:
        lines.append(f"{alerts} alerts in a week in which nothing is wrong")
    if not results["flood"].alerts:
        lines.append("no alert of a flood")
    return lines


def table(results: Mapping[str, Judged]) -> str:
    """Return a Markdown table."""
    lines = [["", "events", "events/s", "read alone", "of that", "cpu s", "peak MB", "alerts"], ["---"] * 8]
    for trail, row in rows(results).items():
        rates = [
            f"{row['rate']:,.0f}",
            f"{row['events'] / row['floor']:,.0f}",
            f"{row['of_floor']:.2f}",
            f"{row['cpu']:.1f}",
        ]
        lines.append([f"a {trail}", f"{row['events']:,}", *rates, f"{row['peak'] / 1e6:.0f}", f"{row['alerts']:,}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
