"""How fast the anomaly rules see a trail: of a week in which nothing is wrong, and of a flood of refusals."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.benchmarks.audit.processes import database, environment_of, process
from tests.benchmarks.worker_protocol import orders_to

TIMES = 3
"""Each is measured so often, and the median counts."""
TRAILS = ("week", "flood")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What was measured of one trail; seconds, and bytes of memory."""

    events: int
    floor: float
    """Reading and parsing each event, and no more."""
    wall: float
    """With all rules, what they remember, and the alerts."""
    cpu: float
    """Of that, this process; the server is another one."""
    peak: int
    alerts: int

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.wall


def measure_judging(*, url: str, events: int, told: Callable[[str], None]) -> dict[str, Judged]:
    """Return what came of it, by trail. url: of the PostgreSQL server."""
    return {trail: _measure(trail, url, events, told) for trail in TRAILS}


def _measure(trail: str, url: str, events: int, told: Callable[[str], None]) -> Judged:
    with database(url) as name:
        with process("tests.benchmarks.anomalies.job", **environment_of("ours", url, name)) as running:
            order = orders_to(running)
            order("migrate")
            assert order(f"fill_{trail}", events) == {"events": events}
        # Another one, that holds nothing of what was written.
        with process("tests.benchmarks.anomalies.job", **environment_of("ours", url, name)) as running:
            order = orders_to(running)
            runs = [order("judge") for _ in range(TIMES)]
            floors = [order("read") for _ in range(TIMES)]
    assert {each["events"] for each in (*runs, *floors)} == {events}, (runs, floors)
    run = sorted(runs, key=lambda each: float(each["wall"]))[TIMES // 2]
    floor = sorted(float(each["wall"]) for each in floors)[TIMES // 2]
    told(f"{events:,} events of a {trail} judged, {TIMES} times.")
    return Judged(events=events, floor=floor, wall=run["wall"], cpu=run["cpu"], peak=run["peak"], alerts=run["alerts"])
