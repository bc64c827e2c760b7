"""Throughput of erasing due claims: with one bare DELETE, and with the scrub task in one and two workers."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.benchmarks.audit.processes import database, environment_of, process
from tests.benchmarks.worker_protocol import command_runner, send_command

READING_MS = 1_500
"""Milliseconds of a reader without a scrub; a concurrent reader runs as long as the scrub."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """The results of one contender."""

    rows: int
    wall: float
    peak: int = 0
    """Peak memory in bytes of the largest process."""
    p99: float = 0.0
    """99th percentile of the latency of a concurrent reader in seconds."""

    @property
    def rate(self) -> float:
        """Rows per second."""
        return self.rows / self.wall


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrubbing:
    """The results of one run."""

    bare: Erased
    one: Erased
    two: Erased
    few: Erased
    """One worker, a tenth of the rows."""
    p99_alone: float


def measure_scrub(*, url: str, rows: int, log: Callable[[str], None]) -> Scrubbing:
    """Return the cost of erasing half of that many rows, and half of a tenth of them.

    Raises: AssertionError if a due row is left, or another row is missing.
    """
    with database(url) as name, _workers(url, name, 1) as (worker,):
        run = command_runner(worker)
        run("migrate")
        run("fill", rows)
        alone = run("read", READING_MS)["p99"]
    done = {}
    for contender, (command, workers, part) in {
        "few": ("scrub", 1, 10),
        "bare": ("bare", 1, 1),
        "one": ("scrub", 1, 1),
        "two": ("scrub", 2, 1),
    }.items():
        done[contender] = _erase(url, command, workers=workers, rows=rows // part)
        log(f"{done[contender].rows:,} rows erased by {contender}, at {done[contender].rate:,.0f} a second.")
    return Scrubbing(p99_alone=alone, **done)


def _erase(url: str, command: str, *, workers: int, rows: int) -> Erased:
    with database(url) as name, _workers(url, name, workers + 1) as (reader, *busy):
        run = command_runner(reader)
        run("migrate")
        run("fill", rows)
        for worker in busy:
            command_runner(worker)("left")
        began = time.perf_counter()
        # Send all commands before waiting for a result.
        waits = [send_command(worker, command) for worker in busy]
        latency = run("read", max(200, rows // 1_700))
        erased = [wait() for wait in waits]
        wall = max(result["wall"] for result in erased)
        assert wall <= time.perf_counter() - began
        assert sum(result["erased"] for result in erased) == rows // 2, erased
        assert run("left") == {"there": rows // 2, "due": 0}
        peak = max(result.get("peak", 0) for result in erased)
    return Erased(rows=rows // 2, wall=wall, peak=peak, p99=latency["p99"])


@contextmanager
def _workers(url: str, name: str, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Start that many processes that run commands."""
    environment = environment_of("phi_oidc", url, name)
    with ExitStack() as stack:
        yield [stack.enter_context(process("tests.benchmarks.claims.job", **environment)) for _ in range(count)]
