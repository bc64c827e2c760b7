"""The results for the start of a web process as tables and JSON, and the missed goals."""

from dataclasses import asdict
from typing import Any

from tests.benchmarks.startup.process_costs import ADMIN, APPS, Results

MOST_TIMES = 1.4
"""Maximum CPU and wall time of the fastest start, as a multiple of the bare project without Django's admin."""
MOST_MEGABYTES = 10.0
"""Maximum that a worker needs more than that of the bare project."""
MOST_MILLISECONDS = 300.0
"""Maximum CPU time that an app adds to the start of the core."""


def rows(results: Results) -> dict[str, Any]:
    """Return the measured values."""
    return {
        "starts": {contender: asdict(cost) for contender, cost in results.starts.items()},
        "workers": {contender: asdict(memory) for contender, memory in results.workers.items()},
    }


def ratios(results: Results, contender: str) -> tuple[float, float]:
    """Return wall and CPU time of the fastest starts, as multiples of bare. Other load only adds to them."""
    bare = results.starts[f"bare{ADMIN}" if contender.endswith(ADMIN) else "bare"]
    cost = results.starts[contender]
    return min(cost.wall_ms) / min(bare.wall_ms), min(cost.cpu_ms) / min(bare.cpu_ms)


def share(results: Results, contender: str) -> tuple[float, float, int]:
    """Return the CPU milliseconds, the megabytes and the modules that an app adds to the start of the core."""
    core, cost = results.starts["phi_oidc"], results.starts[contender]
    milliseconds = min(cost.cpu_ms) - min(core.cpu_ms)
    return milliseconds, cost.resident_mb - core.resident_mb, cost.modules - core.modules


def missed(results: Results) -> list[str]:
    """Return a line for each missed goal. The other libraries, and projects with the admin, have none."""
    lines = []
    for kind, ratio in zip(("wall", "CPU"), ratios(results, "phi_oidc"), strict=True):
        if ratio > MOST_TIMES:
            lines.append(f"a start takes {ratio:.2f} of bare ({kind}), the goal is {MOST_TIMES}")
    ours, bare = results.workers["phi_oidc"], results.workers["bare"]
    for when in ("first_page", "signed_in"):
        more = getattr(ours, when) - getattr(bare, when)
        if more > MOST_MEGABYTES:
            lines.append(f"a worker needs {more:.1f} MB more than bare ({when}), the goal is {MOST_MEGABYTES:.0f}")
    for contender in APPS:
        milliseconds, _, _ = share(results, contender)
        if milliseconds > MOST_MILLISECONDS:
            lines.append(f"{contender} adds {milliseconds:.0f} ms to the start, the goal is {MOST_MILLISECONDS:.0f}")
    return lines


def table(results: Results) -> str:
    """Return three Markdown tables."""
    lines = [["start", "wall ms", "CPU ms", "wall", "CPU", "modules", "MB"], ["---"] * 7]
    for contender, cost in results.starts.items():
        if contender in APPS:
            continue
        wall, cpu = ratios(results, contender)
        times = [f"{min(cost.wall_ms):.0f}", f"{min(cost.cpu_ms):.0f}", f"× {wall:.2f}", f"× {cpu:.2f}"]
        lines.append([contender, *times, f"{cost.modules:,}", f"{cost.resident_mb:.1f}"])
    workers = [["gunicorn worker", "MB, first page", "MB, after the sign-ins"], ["---"] * 3]
    workers += [
        [contender, f"{memory.first_page:.1f}", f"{memory.signed_in:.1f}"]
        for contender, memory in results.workers.items()
    ]
    shares = [["app", "CPU ms", "MB", "modules"], ["---"] * 4]
    for contender in APPS:
        milliseconds, megabytes, modules = share(results, contender)
        shares.append([contender, f"{milliseconds:+.0f}", f"{megabytes:+.1f}", f"{modules:+,}"])
    return "\n\n".join("\n".join(f"| {' | '.join(line)} |" for line in part) for part in (lines, workers, shares))
