"""The results for the anomaly rules as a table and JSON, and the missed goals."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tests.benchmarks.anomalies.rule_throughput import Evaluation

LEAST_RATE = {"week": 20_000, "flood": 15_000}
"""Events per second. Each event of a flood matches five rules, most events of a week one or none."""


def rows(results: Mapping[str, Evaluation]) -> dict[str, Any]:
    """Return the rows of the table; times in seconds, memory in bytes."""
    return {
        trail: {**asdict(evaluation), "rate": evaluation.rate, "of_floor": evaluation.floor / evaluation.wall}
        for trail, evaluation in results.items()
    }


def missed(results: Mapping[str, Evaluation]) -> list[str]:
    """Return a line for each missed goal."""
    lines = [
        f"{evaluation.rate:,.0f} events/s of a {trail}, the goal is {LEAST_RATE[trail]:,}"
        for trail, evaluation in results.items()
        if evaluation.rate < LEAST_RATE[trail]
    ]
    if alerts := results["week"].alerts:
        lines.append(f"{alerts} alerts in a week without anomalies")
    if not results["flood"].alerts:
        lines.append("no alert for a flood")
    return lines


def table(results: Mapping[str, Evaluation]) -> str:
    """Return a Markdown table."""
    lines = [["", "events", "events/s", "only read", "of that", "cpu s", "peak MB", "alerts"], ["---"] * 8]
    for trail, row in rows(results).items():
        rates = [
            f"{row['rate']:,.0f}",
            f"{row['events'] / row['floor']:,.0f}",
            f"{row['of_floor']:.2f}",
            f"{row['cpu']:.1f}",
        ]
        lines.append([f"a {trail}", f"{row['events']:,}", *rates, f"{row['peak'] / 1e6:.0f}", f"{row['alerts']:,}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
