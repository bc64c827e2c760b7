"""A load of 70 % of the capacity for many minutes: memory, latency and the rows of each table.

A visit is a sign-in of a returning person, two pages and a logout. A Celery worker with beat runs the documented
schedule. After each minute, the bare view is visited for a few seconds at 70 % of its own capacity: the speed of a
shared machine changes within half an hour, and changes the latency of both.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import mean, median
from typing import Any

import psycopg
from psycopg import sql

from tests.benchmarks.deployment.browsers import TurnResult
from tests.benchmarks.deployment.portals import Load, Portal, children_of, deployed, memory_of, redis_server
from tests.benchmarks.deployment.report import APP, FLOOR

SHARE = 0.7
FLOOR_SHARE = 1 / 5
"""Time of the bare view after each interval, as a share of the interval.

The rows are counted after it: the sealer, which runs every ten seconds, has then emptied its queue.
"""
PEOPLE = 400
CAPACITY_TURNS, CAPACITY_PASSES = 3, 8
MOST_MEMORY = 1.05
"""Maximum memory in the last third, as a multiple of that in the first one."""
MOST_LATENCY = 1.25
"""The same for the median of the visits, compared with that of the bare view."""
MOST_ROWS, FEW_ROWS = 1.2, 100
"""The same for the rows of a table that is not in GROWING, if they are more than FEW_ROWS more."""
GROWING = {
    "phi_oidc_audit_auditevent": "the audit log, until it is archived",
    "phi_oidc_audit_auditleaf": "the Merkle tree of the audit log",
    "phi_oidc_audit_auditnode": "the same",
    "phi_oidc_audit_auditcheckpoint": "one for each sealing",
    "django_phi_oidc_oidcsession": "ended sessions, until OPERATIONAL_RETENTION has passed",
    "django_phi_oidc_pendingrevocation": "finished revocations, as long",
    "django_phi_oidc_usedidentifier": "for ten minutes; prune deletes them, every ten minutes",
    "phi_oidc_officer_admin_hourlycount": "the numbers of the overview, for each hour",
}
"""The tables that grow on purpose, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The state after an interval, and the visits in it."""

    minute: float
    memory: dict[str, float]
    """Bytes of a gunicorn worker, and of all processes of the Celery worker."""
    rows: dict[str, int]
    """By table."""
    visit_seconds: list[float]
    bare_seconds: list[float]
    """Of the visits of the bare view after the interval."""


@dataclass(slots=True)
class SustainedLoad:
    """The samples."""

    capacity: float
    """Visits of this app a second, as fast as the browsers can."""
    errors: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


def measure_sustained(*, url: str, minutes: float, visits: int, log: Callable[[str], None]) -> SustainedLoad:
    """Return at least six samples. url: of the PostgreSQL server. visits: of each turn that measures the capacity."""
    with ExitStack() as stack:
        broker = stack.enter_context(redis_server())
        deployment = stack.enter_context(deployed([FLOOR, APP], url=url))
        bare, portal = deployment.portals
        worker = stack.enter_context(_celery_worker(portal, f"redis+socket{broker.removeprefix('unix')}"))
        bare_capacity = _measure_capacity(deployment.load, bare, visits)
        load = SustainedLoad(capacity=_measure_capacity(deployment.load, portal, visits))
        log(f"{load.capacity:.1f} visits a second at most; now {minutes:.0f} minutes at {SHARE:.0%} of that.")
        interval = min(60.0, minutes * 60 / 6)
        for number in range(round(minutes * 60 / interval)):
            result = _run_interval(deployment.load, portal, SHARE * load.capacity, interval, first=number)
            memory = {
                "gunicorn": portal.worker_bytes(),
                "celery": float(sum(map(memory_of, (worker, *children_of(worker))))),
            }
            bare_seconds = FLOOR_SHARE * interval
            bare_result = _run_interval(deployment.load, bare, SHARE * bare_capacity, bare_seconds, first=number)
            load.errors += result.errors + bare_result.errors
            sample = Sample(
                minute=(number + 1) * interval / 60,
                memory=memory,
                rows=_count_rows(url, portal),
                visit_seconds=result.seconds,
                bare_seconds=bare_result.seconds,
            )
            load.samples.append(sample)
            own, floor = _median_ms(sample.visit_seconds), _median_ms(sample.bare_seconds)
            log(f"{sample.minute:.1f} minutes: median of a visit {own:.0f} ms, of the bare view {floor:.0f} ms.")
    return load


def _measure_capacity(load: Load, portal: Portal, visits: int) -> float:
    # All people get their accounts now: the visits of the load are those of returning people.
    load.run(portal, "visit", range(PEOPLE))
    people = [number % PEOPLE for number in range(CAPACITY_PASSES * visits)]
    turns = [load.run(portal, "visit", people) for _ in range(CAPACITY_TURNS)]
    return median(len(turn.seconds) / (turn.ended_at - turn.started_at) for turn in turns)


def _run_interval(load: Load, portal: Portal, per_second: float, seconds: float, *, first: int) -> TurnResult:
    """Start visits at the rate. A person does not come again while an earlier visit may go on."""
    number = round(per_second * seconds)
    people = [(first * number + index) % PEOPLE for index in range(number)]
    return load.run(portal, "visit", people, per_second=per_second)


def _count_rows(url: str, portal: Portal) -> dict[str, int]:
    tables = (
        "SELECT relname FROM pg_class WHERE relkind = 'r'"
        " AND relname ~ '^(django_phi_oidc|phi_oidc|django_session|auth_user$)'"
    )
    with psycopg.connect(url, dbname=portal.database) as server:
        rows = {}
        for (name,) in server.execute(tables).fetchall():
            counted = server.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name))).fetchone()
            rows[name] = int(counted[0]) if counted else 0
    return rows


@contextmanager
def _celery_worker(portal: Portal, broker_url: str) -> Iterator[int]:
    """Run the worker with beat, and yield its process."""
    with tempfile.TemporaryDirectory(prefix="phi-oidc-beat-") as directory:
        variables = {**portal.environment, "BENCH_BROKER": broker_url, "BENCH_BEAT_FILE": f"{directory}/beat"}
        command = [sys.executable, "-m", "celery", "--quiet", "-A", "tests.benchmarks.deployment.worker_app", "worker"]
        command += ["-B", "--pool", "solo", "--loglevel", "ERROR", "--without-mingle", "--without-gossip"]
        # A session of its own, to end beat too.
        with subprocess.Popen(command, env=variables, start_new_session=True) as worker:
            try:
                yield worker.pid
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(worker.pid, signal.SIGKILL)


def _median_ms(seconds: list[float]) -> float:
    """Return 0 if no visit succeeded: the errors are a missed goal."""
    return 1000 * median(seconds or [0.0])


def thirds(values: list[float]) -> tuple[float, float]:
    """Return the means of the first and of the last third."""
    length = max(1, len(values) // 3)
    return mean(values[:length]), mean(values[-length:])


def rows(load: SustainedLoad) -> dict[str, Any]:
    """Return the values of the first and the last third: memory in bytes, visits in ms, and rows with their growth."""
    samples = load.samples
    medians = [_median_ms(sample.visit_seconds) for sample in samples]
    bare_medians = [_median_ms(sample.bare_seconds) for sample in samples]
    tables = {}
    for name in samples[-1].rows:
        counts = [float(sample.rows[name]) for sample in samples]
        per_minute = mean(b - a for a, b in pairwise(counts)) / (samples[1].minute - samples[0].minute)
        if max(counts):
            tables[name] = {"rows": thirds(counts), "per_minute": per_minute, "reason": GROWING.get(name, "")}
    return {
        "capacity": load.capacity,
        "visits": sum(len(sample.visit_seconds) for sample in samples),
        "errors": len(load.errors),
        "median": thirds(medians),
        "bare_median": thirds(bare_medians),
        "of_bare": thirds([own / bare if bare else 0.0 for own, bare in zip(medians, bare_medians, strict=True)]),
        "memory": {name: thirds([sample.memory[name] for sample in samples]) for name in samples[0].memory},
        "tables": tables,
    }


def missed(load: SustainedLoad) -> list[str]:
    """Return a line for each value that is not flat."""
    found = rows(load)
    lines = [f"{len(load.errors)} errors during the sustained load: {load.errors[0]}"] if load.errors else []
    checked = {"the median of a visit, compared with the bare view,": (found["of_bare"], MOST_LATENCY)}
    checked |= {f"the memory of {name}": (values, MOST_MEMORY) for name, values in found["memory"].items()}
    for name, ((first, last), most) in checked.items():
        if last > first * most:
            lines.append(f"{name} grew to {last / first:.2f} of its first third, the goal is {most}")
    for name, table_row in found["tables"].items():
        first, last = table_row["rows"]
        if not table_row["reason"] and last > first * MOST_ROWS and last - first > FEW_ROWS:
            lines.append(f"{name} grew from {first:.0f} to {last:.0f} rows, which is not meant to grow")
    return lines


def table(load: SustainedLoad) -> str:
    """Return the tables as Markdown."""
    found = rows(load)
    lines = [["value", "first third", "last third", "a minute", "grows because"], ["---"] * 5]
    lines.append(["median of a visit, ms", *(f"{value:.0f}" for value in found["median"]), "", ""])
    lines.append(["of the bare view, ms", *(f"{value:.0f}" for value in found["bare_median"]), "", ""])
    lines.append(["the first, compared with the second", *(f"{value:.2f}" for value in found["of_bare"]), "", ""])
    for name, values in found["memory"].items():
        lines.append([f"memory of {name}, MB", *(f"{value / 1e6:.1f}" for value in values), "", ""])
    for name, row in sorted(found["tables"].items()):
        counts = [f"{value:,.0f}" for value in row["rows"]]
        lines.append([f"rows of {name}", *counts, f"{row['per_minute']:+,.0f}", row["reason"]])
    head = f"{found['visits']} visits at {SHARE:.0%} of {found['capacity']:.1f} a second, {found['errors']} errors: "
    head += "not flat" if missed(load) else "flat"
    return f"{head}.\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)
