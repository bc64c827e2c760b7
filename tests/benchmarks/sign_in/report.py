"""The results as a table and JSON, and the missed goals."""

from collections.abc import Callable, Mapping
from statistics import median, quantiles
from typing import Any

from tests.benchmarks.sign_in.measurement import Result, Sample

FLOOR, APP, BOUND = "bare", "phi_oidc", "phi_oidc_dpop"
MOST_WALL = 1.4
"""Maximum, as a multiple of the wall time of the bare view."""
MOST_WALL_BOUND = {0: 1.6, 20: 1.2}
"""With tokens that are bound to a key, by the round-trip time in milliseconds."""
MOST_CPU = 2.0
MOST_WAL_KB, MOST_KEPT_KB = 6.0, 4.0
"""Written and kept by a sign-in. Kilobytes are 1,000 bytes."""
ENCRYPTED = "phi_oidc_jwe"
MOST_DECRYPTION_MS = 1.0
"""CPU time that an encrypted ID Token may add."""
COLUMNS = (
    *("round trip", "portal", "wall ms", "p95 ms", "CPU ms", "wall", "CPU"),
    *("requests", "connections", "statements", "commits", "WAL KB", "kept KB"),
)
Results = Mapping[float, Mapping[str, Result]]


def rows(results: Results) -> list[dict[str, Any]]:
    """Return one row for each round-trip time and contender; times in milliseconds, ratios to the bare view."""
    return [
        {
            "round_trip": round(round_trip * 1000),
            "portal": contender,
            **_times(result),
            "wall_ratio": _ratio(result, of[FLOOR], lambda sample: sample.wall),
            "cpu_ratio": _ratio(result, of[FLOOR], lambda sample: sample.cpu),
            "requests": max(sample.requests for sample in result.samples),
            "connections": max(sample.connections for sample in result.samples),
            "statements": result.statements,
            "commits": result.commits,
            "wal_kb": result.wal_bytes / 1000,
            "kept_kb": result.kept_bytes / 1000,
        }
        for round_trip, of in results.items()
        for contender, result in of.items()
    ]


def missed(results: Results) -> list[str]:
    """Return a line for each missed goal."""
    lines = []
    for round_trip, of in results.items():
        if ENCRYPTED in of:
            added = _times(of[ENCRYPTED])["cpu"] - _times(of[APP])["cpu"]
            if added > MOST_DECRYPTION_MS:
                condition = f"at {round(round_trip * 1000)} ms per round trip"
                lines.append(f"{added:.2f} ms of CPU time for encryption {condition}, the goal is {MOST_DECRYPTION_MS}")
    for row in rows(results):
        if row["portal"] not in (APP, BOUND):
            continue
        is_bound, condition = row["portal"] == BOUND, f"at {row['round_trip']} ms per round trip"
        most_wall = MOST_WALL_BOUND.get(row["round_trip"], MOST_WALL) if is_bound else MOST_WALL
        if is_bound:
            condition += " with DPoP"
        if row["wall_ratio"] > most_wall:
            lines.append(f"{row['wall_ratio']:.2f} of the bare view's wall time {condition}, the goal is {most_wall}")
        if row["cpu_ratio"] > MOST_CPU and not is_bound:
            lines.append(f"{row['cpu_ratio']:.2f} of the bare view's CPU time {condition}, the goal is {MOST_CPU}")
        if not is_bound:
            for name, most in (("wal_kb", MOST_WAL_KB), ("kept_kb", MOST_KEPT_KB)):
                if row[name] > most:
                    what = "write-ahead log" if name == "wal_kb" else "tables and indexes"
                    lines.append(f"{row[name]:.1f} KB of {what} {condition}, the goal is {most}")
        if (row["requests"], row["connections"]) != (1, 0):
            lines.append(f"{row['requests']} requests on {row['connections']} new connections {condition}, not 1 on 0")
    return lines


def table(results: Results) -> str:
    """Return the rows as a Markdown table."""
    lines = [COLUMNS, ["---"] * len(COLUMNS)]
    for row in rows(results):
        times = [f"{row[name]:.1f}" for name in ("wall", "wall_p95", "cpu")]
        ratios = [f"× {row[name]:.2f}" for name in ("wall_ratio", "cpu_ratio")]
        counts = [str(row[name]) for name in ("requests", "connections", "statements", "commits")]
        sizes = [f"{row[name]:.1f}" for name in ("wal_kb", "kept_kb")]
        lines.append([f"{row['round_trip']} ms", row["portal"], *times, *ratios, *counts, *sizes])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _times(result: Result) -> dict[str, float]:
    walls = [sample.wall * 1000 for sample in result.samples]
    return {
        "wall": median(walls),
        "wall_p95": quantiles(walls, n=20, method="inclusive")[18],
        "cpu": median(sample.cpu * 1000 for sample in result.samples),
    }


def _ratio(result: Result, floor: Result, time: Callable[[Sample], float]) -> float:
    return median(map(time, result.samples)) / median(map(time, floor.samples))
