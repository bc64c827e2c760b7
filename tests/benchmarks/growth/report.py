"""The results for growth as a table and JSON, and the missed goals."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tests.benchmarks.growth.work_times import WorkTime

NAMES = {
    "overdue": "`end_overdue`, nothing due",
    "scrub": "`scrub`, nothing due",
    "check": "`check_sessions`, nothing lost",
    "lost": "`check_sessions`, lost sessions",
    "prune": "`prune`",
    "backchannel": "back-channel logout",
    "bulk": "bulk end",
}
MOST_SECONDS = {"overdue": 0.3, "scrub": 0.3, "check": 30.0, "backchannel": 2.0}
"""Those of tasks that find nothing, which also holds for any number of sessions that are not due."""
MOST_SECONDS_OF_A_LIST = 0.06
LEAST_RATE = {"bulk": 5_000.0}
"""Sessions a second."""
MOST_RATIO = {"check": 20.0, "prune": 10.0, "sign-in beside check_sessions": 3.0, "sign-in beside the bulk end": 3.0}
"""Times the floor."""


def rows(results: Mapping[str, WorkTime]) -> dict[str, Any]:
    """Return the rows of the table; times in seconds."""
    return {name: {**asdict(result), "ratio": result.ratio} for name, result in results.items()}


def missed(results: Mapping[str, WorkTime]) -> list[str]:
    """Return a line for each missed goal."""
    lines = []
    for name, result in results.items():
        title = NAMES.get(name, name)
        most = MOST_SECONDS_OF_A_LIST if name.startswith("list") else MOST_SECONDS.get(name)
        if most is not None and result.seconds > most:
            lines.append(f"{title} takes {result.seconds:.2f} s, the goal is {most:.2f}")
        if result.rate < LEAST_RATE.get(name, 0.0):
            lines.append(f"{title} changes {result.rate:,.0f} rows a second, the goal is {LEAST_RATE[name]:,.0f}")
        if result.ratio > MOST_RATIO.get(name, result.ratio):
            lines.append(f"{title} takes {result.ratio:.1f} times its floor, the goal is {MOST_RATIO[name]:.0f}")
    return lines


def table(results: Mapping[str, WorkTime]) -> str:
    """Return a Markdown table."""
    lines = [["", "s", "floor s", "times the floor", "rows", "rows/s", "statements"], ["---"] * 7]
    for name, result in results.items():
        changed = [f"{result.count:,}", f"{result.rate:,.0f}"] if result.count else ["", ""]
        times = [f"{result.seconds:.3f}", f"{result.floor:.3f}", f"{result.ratio:.1f}"]
        lines.append([NAMES.get(name, name), *times, *changed, str(result.statements or "")])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
