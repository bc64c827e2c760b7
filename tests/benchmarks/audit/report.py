"""The results for the audit log as tables and JSON, and the missed goals."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from tests.benchmarks.audit.log_throughput import Took, Trail
from tests.benchmarks.audit.write_throughput import Rates, Writers

FLOOR, APP = "bare", "phi_oidc"
GOAL_WRITERS = (8, 1)
LEAST_OF_BARE = 0.70
"""Share of the rate of a bare INSERT with GOAL_WRITERS."""
LEAST_SEALED = 100_000
"""Events per second, of a backlog."""
LEAST_VERIFIED = 100_000
"""Events per second, by one process."""
MOST_MEMORY = 150
"""Megabytes of the verifying process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The results for the audit log."""

    recorded: Mapping[Writers, Mapping[str, Rates]]
    """By processes and threads, and by contender."""
    trail: Trail
    cores: int
    load: float
    """Load of the machine before."""


def rows(results: Results) -> dict[str, Any]:
    """Return the rows of both tables; CPU in microseconds for each event, memory in megabytes."""
    trail = results.trail
    verified = sorted(trail.verified, key=lambda took: took.rate)[len(trail.verified) // 2]
    work = {"seal a backlog": trail.backlog, "verify": verified, "read and hash once": trail.floor}
    return {
        "record": [
            {
                "writers": "{} × {}".format(*writers),
                "contender": contender,
                "rate": median(rates.rates),
                "ratio": _ratio(rates, of[FLOOR]),
                "cpu": median(rates.cpu) * 1e6,
            }
            for writers, of in results.recorded.items()
            for contender, rates in of.items()
        ],
        "trail": [{"work": name, **_row(took)} for name, took in work.items()],
        "cores": results.cores,
        "load": results.load,
    }


def missed(results: Results) -> list[str]:
    """Return a line for each missed goal."""
    results_rows = rows(results)
    backlog, verified, _ = results_rows["trail"]
    lines = [
        f"record() at {ratio:.2f} of the bare INSERT's rate with 8 writers, the goal is {LEAST_OF_BARE:.2f}"
        for of in [results.recorded[GOAL_WRITERS]]
        if (ratio := _ratio(of[APP], of[FLOOR])) < LEAST_OF_BARE
    ]
    if backlog["rate"] < LEAST_SEALED:
        lines.append(f"{backlog['rate']:,.0f} events/s sealed of a backlog, the goal is {LEAST_SEALED:,}")
    if verified["rate"] < LEAST_VERIFIED:
        lines.append(f"{verified['rate']:,.0f} events/s verified, the goal is {LEAST_VERIFIED:,}")
    if verified["peak"] > MOST_MEMORY:
        lines.append(f"{verified['peak']:.0f} MB to verify, the goal is {MOST_MEMORY}")
    return lines


def table(results: Results) -> str:
    """Return the rows as two Markdown tables."""
    results_rows = rows(results)
    recorded = [
        [row["writers"], row["contender"], f"{row['rate']:,.0f}", f"{row['ratio']:.2f}", f"{row['cpu']:.0f}"]
        for row in results_rows["record"]
    ]
    worked = [
        [
            row["work"],
            f"{row['events']:,}",
            f"{row['wall']:.2f}",
            f"{row['rate']:,.0f}",
            f"{row['cpu']:.1f}",
            "?" if row["server_cpu"] is None else f"{row['server_cpu']:.1f}",
            f"{row['peak']:.0f}" if row["peak"] else "",
        ]
        for row in results_rows["trail"]
    ]
    return "\n\n".join(
        (
            _markdown(["processes × threads", "contender", "events/s", "of bare", "writer's CPU µs"], recorded),
            _markdown(["work", "events", "seconds", "events/s", "CPU µs", "server's CPU µs", "peak MB"], worked),
        )
    )


def _row(took: Took) -> dict[str, Any]:
    return {
        "events": took.events,
        "wall": took.wall,
        "rate": took.rate,
        "cpu": took.cpu / took.events * 1e6,
        "server_cpu": None if took.server_cpu is None else took.server_cpu / took.events * 1e6,
        "peak": took.peak / 1e6,
    }


def _ratio(rates: Rates, floor: Rates) -> float:
    """Return the median of the ratios per round, since other load in a round affects both."""
    return median(rate / of_floor for rate, of_floor in zip(rates.rates, floor.rates, strict=True))


def _markdown(header: list[str], lines: list[list[Any]]) -> str:
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (header, ["---"] * len(header), *lines))
