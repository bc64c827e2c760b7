"""How fast what is due is erased: by one bare DELETE, and by ours with one worker and with two."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.benchmarks.audit.processes import database, environment_of, process
from tests.benchmarks.worker_protocol import begin, orders_to

READING_MS = 1_500
"""Of a reader alone; beside a scrub it goes on for as long as that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What was measured of one contender."""

    rows: int
    wall: float
    peak: int = 0
    """Bytes of memory, of the process that held the most."""
    p99: float = 0.0
    """Seconds that a reader beside it waited, of a hundred the longest but one."""

    @property
    def rate(self) -> float:
        """Rows per second."""
        return self.rows / self.wall


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrubbing:
    """Of one run."""

    bare: Erased
    one: Erased
    two: Erased
    few: Erased
    """One worker, a tenth of the rows."""
    p99_alone: float


def measure_scrubbing(*, url: str, rows: int, told: Callable[[str], None]) -> Scrubbing:
    """Return what erasing half of that many rows took, and half of a tenth of them.

    Raises: AssertionError where a row that is due is left, or another is gone.
    """
    with database(url) as name, _workers(url, name, 1) as (worker,):
        order = orders_to(worker)
        order("migrate")
        order("fill", rows)
        alone = order("read", READING_MS)["p99"]
    done = {}
    for contender, (order, workers, part) in {
        "few": ("scrub", 1, 10),
        "bare": ("bare", 1, 1),
        "one": ("scrub", 1, 1),
        "two": ("scrub", 2, 1),
    }.items():
        done[contender] = _erase(url, order, workers=workers, rows=rows // part)
        told(f"{done[contender].rows:,} rows erased by {contender}, at {done[contender].rate:,.0f} a second.")
    return Scrubbing(p99_alone=alone, **done)


def _erase(url: str, order: str, *, workers: int, rows: int) -> Erased:
    with database(url) as name, _workers(url, name, workers + 1) as (reader, *busy):
        ask = orders_to(reader)
        ask("migrate")
        ask("fill", rows)
        for each in busy:
            orders_to(each)("left")
        began = time.perf_counter()
        # Each is told before any is heard.
        answers = [begin(each, order) for each in busy]
        seen = ask("read", max(200, rows // 1_700))
        erased = [answer() for answer in answers]
        wall = max(each["wall"] for each in erased)
        assert wall <= time.perf_counter() - began
        assert sum(each["erased"] for each in erased) == rows // 2, erased
        assert ask("left") == {"there": rows // 2, "due": 0}
        peak = max(each.get("peak", 0) for each in erased)
    return Erased(rows=rows // 2, wall=wall, peak=peak, p99=seen["p99"])


@contextmanager
def _workers(url: str, name: str, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Run as many processes that take orders."""
    environment = environment_of("ours", url, name)
    with ExitStack() as stack:
        yield [stack.enter_context(process("tests.benchmarks.claims.job", **environment)) for _ in range(count)]
