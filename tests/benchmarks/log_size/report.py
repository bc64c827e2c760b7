"""The measures of the logs as tables and JSON, and the missed goals."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tests.benchmarks.log_size.measurement import LogSizes, Measure

MOST = {
    "partition detached": 1_000.0,
    "proof, p99": 20.0,
    "bytes of an event and its leaf": 700.0,
    "verification of a day": 30.0,
}
"""By the beginning of the names, in the unit of the measure."""
MOST_OF_FLOOR = {"event beside that, p99": 2.0}
MOST_GROWTH = 1.5
"""Of a value in the largest log, as a multiple of that in the smallest one, and by more than LEAST_DIFFERENCE."""
LEAST_DIFFERENCE = 20.0
"""Of milliseconds: less is noise while 8 writers use the processor."""
NOT_COMPARED = ("slowest", "event beside")
"""These are compared with their floors, or vary too much."""


def rows(results: LogSizes) -> dict[str, Any]:
    """Return the rows of both tables."""
    return {
        "growth": {size: _rows(measures) for size, measures in results.growth.items()},
        "once": _rows(results.once),
    }


def missed(results: LogSizes) -> list[str]:
    """Return a line for each missed goal."""
    lines = []
    named = [(f" at {size:,} events", each) for size, measures in results.growth.items() for each in measures.items()]
    for where, (name, measure) in [*named, *(("", each) for each in results.once.items())]:
        most = next((most for start, most in MOST.items() if name.startswith(start)), measure.value)
        if measure.value > most:
            lines.append(f"{name}{where}: {measure.value:,.1f}, the goal is {most:,.0f}")
        if (ratio := measure.value / measure.floor) > MOST_OF_FLOOR.get(name, ratio):
            lines.append(f"{name}{where}: {ratio:.1f} times the normal one, the goal is {MOST_OF_FLOOR[name]:.0f}")
    logs = list(results.growth.values())
    smallest, largest = logs[0], logs[-1]
    for name in smallest:
        growth = largest[name].value / smallest[name].value
        difference = largest[name].value - smallest[name].value
        if growth > MOST_GROWTH and difference > LEAST_DIFFERENCE and not name.startswith(NOT_COMPARED):
            lines.append(f"{name} grew {growth:.1f} times, the goal is {MOST_GROWTH:g}")
    return lines


def table(results: LogSizes) -> str:
    """Return the measures as two Markdown tables, each with its floor or peer in parentheses."""
    sizes = list(results.growth)
    header = ["milliseconds (floor)", *(f"{size:,} events" for size in sizes)]
    lines = [[name, *(_format(results.growth[size][name]) for size in sizes)] for name in results.growth[sizes[0]]]
    once = [[name, _format(measure)] for name, measure in results.once.items()]
    return "\n\n".join((_markdown(header, lines), _markdown(["once (floor)", ""], once)))


def _rows(measures: Mapping[str, Measure]) -> dict[str, Any]:
    return {name: asdict(measure) for name, measure in measures.items()}


def _format(measure: Measure) -> str:
    value, floor = (f"{each:,.0f}" if each >= 100 else f"{each:.2f}" for each in (measure.value, measure.floor))
    return f"{value} ({floor})"


def _markdown(header: list[str], lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *lines))
