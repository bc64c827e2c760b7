"""Measures of logs of several sizes, each in a database of its own; one is a copy of the next smaller one that grew."""

import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from tests.benchmarks.audit.processes import database, environment_of, process
from tests.benchmarks.audit.write_throughput import Team, team_of
from tests.benchmarks.audit.writers import HEAD_START
from tests.benchmarks.worker_protocol import command_runner, send_command

WRITERS = (8, 1)
RUNS = 3
KEPT_NAME = "phi_bench_log_{}"
"""Of the database of a log with that many events that is kept for the next run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A measured value, and its floor or peer in the same run."""

    value: float
    floor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSizes:
    """The measures of the logs. Times in milliseconds, unless the name of a measure has another unit."""

    growth: Mapping[int, Mapping[str, Measure]]
    """By number of events, ascending, and by name; each log has the same names."""
    once: Mapping[str, Measure]
    """Those of one log: of the largest, and of the one that is converted."""


def build_logs(*, url: str, sizes: Sequence[int], log: Callable[[str], None], name: str = KEPT_NAME) -> list[str]:
    """Build the logs that do not exist or are too small, and return the names of all. url: of the server."""
    names = [name.format(size) for size in sizes]
    for size, new, smaller in zip(sizes, names, ("template0", *names), strict=False):
        is_new = not _exists(url, new)
        if is_new:
            _execute(url, "CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy", new, smaller)
        with _job(url, new) as running:
            run = command_runner(running)
            if is_new and smaller == "template0":
                run("migrate")
                run("partition")
            took = run("extend", size)
        if took["written"]:
            log(f"{size:,} events: written in {took['written']:.0f} s, sealed in {took['sealed']:.0f} s.")
    return names


def measure_sizes(
    *,
    url: str,
    sizes: Sequence[int],
    new: int,
    day: int,
    converted: int,
    seconds: float,
    proofs: int,
    is_kept: bool,
    log: Callable[[str], None],
) -> LogSizes:
    """Return the measures.

    sizes: events of the logs, ascending. new: events that are sealed, or verified after a verification. day: the same
    for the largest log. converted: events of the log that gets partitions. seconds: length of a turn of the writers.
    is_kept: the logs are those that `build_logs` keeps.
    """
    growth = {}
    name = KEPT_NAME if is_kept else f"phi_bench_{secrets.token_hex(4)}_{{}}"
    try:
        names = build_logs(url=url, sizes=sizes, log=log, name=name)
        for size, database_name in zip(sizes, names, strict=True):
            growth[size] = _measure_log(url, database_name, new=new, proofs=proofs, seconds=seconds)
            log(f"The log of {size:,} events is measured.")
        with _job(url, names[-1]) as running:
            run = command_runner(running)
            verified, everything = run("verify_new", day), run("verify_all")
        log(f"{everything['events']:,} events verified in {everything['seconds']:.0f} s.")
    finally:
        for size in () if is_kept else sizes:
            _execute(url, "DROP DATABASE IF EXISTS {} WITH (FORCE)", name.format(size))
    once = {
        f"verification of a day, {verified['events']:,} events, s": _measure(verified),
        f"verification of all {everything['events']:,} events, s": _measure(everything),
        **_measure_conversion(url, converted, seconds, log),
    }
    return LogSizes(growth=growth, once=once)


def _measure_log(url: str, name: str, *, new: int, proofs: int, seconds: float) -> dict[str, Measure]:
    with _job(url, name) as running:
        run = command_runner(running)
        read, sealed = run("read", proofs), run("seal_new", new)
        # The first one reads from the disk.
        verified = sorted((run("verify_new", new) for _ in range(RUNS)), key=lambda took: took["seconds"])[RUNS // 2]
        with team_of("bare", url=url, name=name, processes=WRITERS[0]) as bare:
            bare.wait_until_ready()
            with team_of("phi_oidc", url=url, name=name, processes=WRITERS[0]) as team:
                team.wait_until_ready()
                written = [(_cost(team, seconds), _cost(bare, seconds)) for _ in range(RUNS)]
                run("seal")
                weights = run("weigh")
                detached = [_detach(running, team, seconds) for _ in range(RUNS)]
    proof = read["proof"]
    return {
        "event recorded by 8 writers, µs": Measure(
            value=median(own for own, _ in written), floor=median(floor for _, floor in written)
        ),
        f"{new:,} events sealed": _measure(sealed, 1000),
        f"{new:,} new events verified": _measure(verified, 1000),
        "page of the list": _measure(read["list"], 1000),
        "page of a person's events": _measure(read["list of a person"], 1000),
        "proof": _measure(proof, 1000),
        "proof, p99": Measure(value=proof["p99"] * 1000, floor=proof["floor_p99"] * 1000),
        "partition detached": Measure(
            value=median(each["seconds"] for each in detached) * 1000,
            floor=median(each["peer"] for each in detached) * 1000,
        ),
        "event beside that, p99": _compare(detached, "p99"),
        "slowest event beside that": _compare(detached, "slowest"),
        "bytes of an event and its leaf, 1 writer": Measure(value=weights["one writer"], floor=weights["floor"]),
        "bytes of an event and its leaf, 8 writers": Measure(value=weights["eight writers"], floor=weights["floor"]),
    }


def _detach(running: Any, team: Team, seconds: float) -> dict[str, Any]:
    """Detach the partition in the middle of a turn of the writers, after a turn without that; then attach it again."""
    run = command_runner(running)
    normal = team.begin_turn(WRITERS, seconds)()
    turn = team.begin_turn(WRITERS, seconds)
    time.sleep(HEAD_START + seconds / 3)
    took = run("detach")
    return {"turn": turn(), "normal": normal, **took, "peer": run("attach")["peer"]}


def _measure_conversion(url: str, count: int, seconds: float, log: Callable[[str], None]) -> dict[str, Measure]:
    with database(url) as name, _job(url, name) as running:
        floor = command_runner(running)("prepare_conversion", count)["floor"]
        with team_of("phi_oidc", url=url, name=name, processes=WRITERS[0]) as team, ThreadPoolExecutor(1) as executor:
            team.wait_until_ready()
            normal = team.begin_turn(WRITERS, seconds)()
            converting = executor.submit(send_command(running, "convert"))
            turns = []
            while not converting.done():
                turns.append(team.begin_turn(WRITERS, max(seconds, floor))())
            took = converting.result()
        log(f"A log of {count:,} events converted.")
    meanwhile = [{"turn": turn, "normal": normal} for turn in turns]
    return {
        f"conversion of {count:,} events, s": Measure(value=took["seconds"], floor=floor),
        "replacement of the table in that": Measure(value=took["replaced"] * 1000, floor=normal["slowest"] * 1000),
        "event beside the conversion, p99": _compare(meanwhile, "p99"),
        "slowest event beside the conversion": _compare(meanwhile, "slowest"),
    }


def _measure(took: Mapping[str, float], factor: float = 1.0) -> Measure:
    return Measure(value=took["seconds"] * factor, floor=took["floor"] * factor)


def _compare(turns: Sequence[Mapping[str, Any]], name: str) -> Measure:
    """Return that of the turns, in milliseconds, next to that of the normal turns: the maximum, or the median."""
    summarize = max if name == "slowest" else median
    value, floor = (summarize(each[which][name] for each in turns) for which in ("turn", "normal"))
    return Measure(value=value * 1000, floor=floor * 1000)


def _cost(team: Team, seconds: float) -> float:
    """Return microseconds for each event of all writers together."""
    events: int = team.begin_turn(WRITERS, seconds)()["events"]
    return seconds / max(events, 1) * 1e6


@contextmanager
def _job(url: str, name: str) -> Iterator[subprocess.Popen[str]]:
    with process("tests.benchmarks.log_size.job", **environment_of("phi_oidc", url, name)) as running:
        yield running


def _exists(url: str, name: str) -> bool:
    with psycopg.connect(url) as server:
        return server.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is not None


def _execute(url: str, statement: LiteralString, *names: str) -> None:
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
