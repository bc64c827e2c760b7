"""The results under gunicorn as tables and JSON, and the missed goals."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from tests.benchmarks.deployment.throughput import MeasuredTurn, Results

FLOOR, APP = "bare", "phi_oidc"
LEAST_THROUGHPUT = {
    ("returning", 0): 0.95,
    ("returning", 20): 0.80,
    ("new", 0): 0.80,
    ("new", 20): 0.80,
    ("logout", 0): 0.55,
    ("logout", 20): 0.85,
    ("page", 0): 0.85,
    ("returning, Redis", 0): 0.75,
    ("returning, Redis", 20): 0.75,
}
"""Minimum, as a share of the throughput of the bare view, by scenario and round-trip time in milliseconds."""
MOST_CPU = {("logout", 0): 2.0, ("logout", 20): 2.0}
"""Maximum, as a multiple of its CPU time."""
MOST_WAL = {"returning": 6_000, "logout": 6_000}
"""Bytes of the write-ahead log for each visit: at a round trip of 0 ms, the least of all turns."""
MOST_KEPT = 4_000
"""Bytes that a sign-in of a returning person adds to the tables and indexes."""
MOST_MEMORY = 10_000_000
"""Bytes of a worker process in addition to that of the bare view."""
COLUMNS = (
    *("visit", "round trip", "portal", "visits/s", "of bare", "CPU ms", "of bare", "p50 ms", "p95 ms"),
    *("PostgreSQL's CPU ms", "WAL KB", "requests", "errors"),
)


def rows(results: Results) -> dict[str, Any]:
    """Return the rows of both tables; times in milliseconds, ratios to the bare view."""
    visits = []
    for (scenario, round_trip), measured in results.turns.items():
        for contender, turns in measured.items():
            count = sum(turn.visits for turn in turns) or 1
            seconds = [seconds for turn in turns for seconds in turn.visit_seconds]
            visits.append(
                {
                    "scenario": scenario,
                    "round_trip": round(round_trip * 1000),
                    "portal": contender,
                    "per_second": median(turn.per_second for turn in turns),
                    "throughput_ratio": _ratio(turns, measured[FLOOR], lambda turn: turn.per_second),
                    "cpu": 1000 * sum(turn.cpu_seconds for turn in turns) / count,
                    "cpu_ratio": _ratio(turns, measured[FLOOR], lambda turn: turn.cpu_seconds / max(turn.visits, 1)),
                    "p50": 1000 * median(seconds or [0.0]),
                    "p95": 1000 * quantiles(seconds, n=20, method="inclusive")[-1] if len(seconds) > 1 else 0.0,
                    "database_cpu": 1000 * sum(turn.database_cpu_seconds for turn in turns) / count,
                    # A page that is written for the first time after a checkpoint is logged as a whole: not each time.
                    "wal": min(turn.wal_bytes / max(turn.visits, 1) for turn in turns),
                    "requests": sum(turn.requests for turn in turns) / count,
                    "errors": sum(len(turn.errors) for turn in turns),
                }
            )
    portals = [
        {"portal": contender, "memory": memory, "kept": results.kept_bytes[contender]}
        for contender, memory in results.worker_bytes.items()
    ]
    return {"visits": visits, "portals": portals}


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A measured value, and its limit."""

    title: str
    value: float
    limit: float
    unit: str = ""
    is_least: bool = False
    """The limit is the least value, and not the greatest."""

    @property
    def is_missed(self) -> bool:
        return self.value < self.limit if self.is_least else self.value > self.limit

    @property
    def cells(self) -> tuple[str, str, str]:
        """Value, limit, and whether it is missed."""
        digits = 2 if not self.unit else 1
        limit = f"{'at least' if self.is_least else 'at most'} {self.limit:.{digits}f}{self.unit}"
        return f"{self.value:.{digits}f}{self.unit}", limit, "missed" if self.is_missed else "met"


def list_goals(results: Results) -> Iterator[Goal]:
    """Yield the goals of this app."""
    found = rows(results)
    for row in found["visits"]:
        key = (row["scenario"], row["round_trip"])
        if row["portal"] != APP:
            continue
        title = f"{key[0]} at {key[1]} ms"
        throughput, least = row["throughput_ratio"], LEAST_THROUGHPUT[key]
        yield Goal(title=f"{title}: throughput of bare", value=throughput, limit=least, is_least=True)
        if key in MOST_CPU:
            yield Goal(title=f"{title}: CPU time of bare", value=row["cpu_ratio"], limit=MOST_CPU[key])
        if not key[1] and key[0] in MOST_WAL:
            yield Goal(title=f"{title}: WAL", value=row["wal"] / 1000, limit=MOST_WAL[key[0]] / 1000, unit=" KB")
    of = {row["portal"]: row for row in found["portals"]}
    if APP in of:
        memory = of[APP]["memory"] - of[FLOOR]["memory"]
        yield Goal(title="kept of a sign-in", value=of[APP]["kept"] / 1000, limit=MOST_KEPT / 1000, unit=" KB")
        yield Goal(title="a worker, more than bare", value=memory / 1e6, limit=MOST_MEMORY / 1e6, unit=" MB")


def missed(results: Results) -> list[str]:
    """Return a line for each missed goal, and for the first error of each scenario."""
    lines = []
    for (scenario, round_trip), measured in results.turns.items():
        for contender, turns in measured.items():
            if errors := [error for turn in turns for error in turn.errors]:
                lines.append(
                    f"{len(errors)} errors of {contender}, {scenario} at {round_trip * 1000:.0f} ms: {errors[0]}"
                )
    for goal in list_goals(results):
        if goal.is_missed:
            value, limit, _ = goal.cells
            lines.append(f"{goal.title}: {value}, the goal is {limit}")
    return lines


def table(results: Results) -> str:
    """Return the tables as Markdown: visits, portals and goals."""
    found = rows(results)
    visits = [COLUMNS, ("---",) * len(COLUMNS)]
    for row in found["visits"]:
        throughput = (f"{row['per_second']:.1f}", f"{row['throughput_ratio']:.2f}")
        costs = (f"{row['cpu']:.1f}", f"{row['cpu_ratio']:.2f}", f"{row['p50']:.0f}", f"{row['p95']:.0f}")
        counts = (
            f"{row['database_cpu']:.1f}",
            f"{row['wal'] / 1000:.1f}",
            f"{row['requests']:.1f}",
            str(row["errors"]),
        )
        visits.append((row["scenario"], f"{row['round_trip']} ms", row["portal"], *throughput, *costs, *counts))
    portals = [("portal", "worker MB", "KB kept of a sign-in"), ("---",) * 3]
    for row in found["portals"]:
        portals.append((row["portal"], f"{row['memory'] / 1e6:.0f}", f"{row['kept'] / 1000:.1f}"))
    goals = [("goal", "measured", "limit", ""), ("---",) * 4]
    goals += [(goal.title, *goal.cells) for goal in list_goals(results)]
    return "\n\n".join("\n".join(f"| {' | '.join(line)} |" for line in lines) for lines in (visits, portals, goals))


def _ratio(turns: list[MeasuredTurn], floor: list[MeasuredTurn], value: Callable[[MeasuredTurn], float]) -> float:
    """Return the median ratio of the turns of the same round."""
    return (
        median(value(turn) / value(bare) for turn, bare in zip(turns, floor, strict=True) if value(bare))
        if floor
        else 0
    )
