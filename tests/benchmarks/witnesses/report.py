"""The costs of the witnesses as a table and JSON, and the missed goals."""

from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any

from tests.benchmarks.witnesses.costs import Costs

MOST_ADDED_TO_A_SEAL = 20.0
"""Milliseconds, of the medians."""
MOST_OF_A_PROOF = 20.0
"""Milliseconds of the 99th percentile."""
MOST_OF_AN_EVENT = 1.2
"""Of the median without witnesses: they add nothing, but the times of a disk vary."""
MOST_UNTIL_REFUSED = 1000.0
"""Milliseconds from a seal to the quorum, and thus to the refusal of a rewritten log."""


def rows(costs: Costs) -> dict[str, Any]:
    """Return the rows of the table, in milliseconds."""
    named = {
        "seal, no witness": costs.seal_floor,
        "seal, 2 of 3 witnesses": costs.seal,
        "from the seal to the quorum": costs.quorum,
        "event, no witness": costs.record_floor,
        "event, witnesses are asked": costs.record,
        "proof, no witness": costs.proof_floor,
        f"proof in {costs.tree_size:,} leaves": costs.proof,
    }
    return {name: {"p50": median(times), "p99": _p99(times)} for name, times in named.items()}


def missed(costs: Costs) -> list[str]:
    """Return a line for each missed goal."""
    added = median(costs.seal) - median(costs.seal_floor)
    ratio = median(costs.record) / median(costs.record_floor)
    checks = (
        (added, MOST_ADDED_TO_A_SEAL, "ms added to a seal"),
        (_p99(costs.proof), MOST_OF_A_PROOF, "ms of a proof at the 99th percentile"),
        (ratio, MOST_OF_AN_EVENT, "times an event without witnesses"),
        (_p99(costs.quorum), MOST_UNTIL_REFUSED, "ms from a seal to the quorum at the 99th percentile"),
    )
    return [f"{value:.2f} {what}, the goal is {goal:g}" for value, goal, what in checks if value > goal]


def table(costs: Costs) -> str:
    """Return a Markdown table."""
    lines = [["", "p50 ms", "p99 ms"], ["---"] * 3]
    lines += [[name, f"{row['p50']:.1f}", f"{row['p99']:.1f}"] for name, row in rows(costs).items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _p99(times: Sequence[float]) -> float:
    return quantiles(times, n=100)[98] if len(times) > 1 else times[0]
