"""The rates as a table and JSON, and the missed goals."""

from typing import Any

from tests.benchmarks.sweep.rates import WORKERS, Rate, Results

LEAST = {0.02: 400.0, 0.1: 150.0}
"""Minimum tokens a second of one worker, by the round trip in seconds."""
MOST_LOGOUT_SECONDS = 2.0
"""For a back-channel logout of LOGGED_OUT sessions; proportionally less for fewer."""
LOGGED_OUT = 10_000
LEAST_ENDED = 5_000.0
"""Sessions a second of a bulk end."""


def rows(results: Results) -> dict[str, Any]:
    """Return the rows of the table; times in seconds."""
    return {title: _build_row(rate) for title, rate in _name(results).items()}


def missed(results: Results) -> list[str]:
    """Return a line for each missed goal."""
    lines = [
        f"{rate.per_second:.0f} tokens a second at {round_trip * 1000:.0f} ms, the goal is {LEAST[round_trip]:.0f}"
        for round_trip, rate in results.sweeps.items()
        if rate.per_second < LEAST.get(round_trip, 0)
    ]
    repeated = sum(rate.repeated for rate in (*results.sweeps.values(), results.at_once))
    if repeated:
        lines.append(f"{repeated} tokens were asked for twice")
    if results.logout.per_second < LOGGED_OUT / MOST_LOGOUT_SECONDS:
        took = LOGGED_OUT / results.logout.per_second
        lines.append(f"{LOGGED_OUT:,} sessions logged out in {took:.1f} s, the goal is {MOST_LOGOUT_SECONDS:.0f}")
    if results.bulk.per_second < LEAST_ENDED:
        lines.append(f"{results.bulk.per_second:,.0f} sessions a second ended by a job, the goal is {LEAST_ENDED:,.0f}")
    return lines


def table(results: Results) -> str:
    """Return a Markdown table."""
    lines = [["", "done", "a second", "CPU ms each", "asked twice"], ["---"] * 5]
    for title, row in rows(results).items():
        figures = [f"{row['count']:,}", f"{row['per_second']:,.0f}", f"{row['cpu_ms']:.2f}", str(row["repeated"])]
        lines.append([title, *figures])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _name(results: Results) -> dict[str, Rate]:
    sweeps = {f"sweep, {round_trip * 1000:.0f} ms": rate for round_trip, rate in results.sweeps.items()}
    last = max(results.sweeps)
    return {
        **sweeps,
        f"{WORKERS} sweeps at once, {last * 1000:.0f} ms": results.at_once,
        "back-channel logout": results.logout,
        "bulk end": results.bulk,
    }


def _build_row(rate: Rate) -> dict[str, Any]:
    cpu_ms = rate.cpu / rate.count * 1000
    return {
        "count": rate.count,
        "wall": rate.wall,
        "per_second": rate.per_second,
        "cpu_ms": cpu_ms,
        "repeated": rate.repeated,
    }
