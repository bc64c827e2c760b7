"""Throughput of the anomaly rules for a week without anomalies and for a flood of refusals."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.benchmarks.audit.processes import database, environment_of, process
from tests.benchmarks.worker_protocol import command_runner

TIMES = 3
"""Number of runs; the median counts."""
TRAILS = ("week", "flood")
APPS = ("django_phi_oidc.contrib.monitoring",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The results for one log; seconds, and bytes of memory."""

    events: int
    floor: float
    """Only reading and parsing the events."""
    wall: float
    """With all rules, their memory and the alerts."""
    cpu: float
    """CPU of this process, without the server."""
    peak: int
    alerts: int

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.wall


def measure_rules(*, url: str, events: int, log: Callable[[str], None]) -> dict[str, Evaluation]:
    """Return the results by log. url: of the PostgreSQL server."""
    return {trail: _measure(trail, url, events, log) for trail in TRAILS}


def _measure(trail: str, url: str, events: int, log: Callable[[str], None]) -> Evaluation:
    with database(url) as name:
        with process("tests.benchmarks.anomalies.job", **environment_of("phi_oidc", url, name, apps=APPS)) as running:
            run = command_runner(running)
            run("migrate")
            assert run(f"fill_{trail}", events) == {"events": events}
        # A new process without data from writing.
        with process("tests.benchmarks.anomalies.job", **environment_of("phi_oidc", url, name, apps=APPS)) as running:
            run = command_runner(running)
            runs = [run("judge") for _ in range(TIMES)]
            floors = [run("read") for _ in range(TIMES)]
    assert {result["events"] for result in (*runs, *floors)} == {events}, (runs, floors)
    median_run = sorted(runs, key=lambda result: float(result["wall"]))[TIMES // 2]
    floor = sorted(float(result["wall"]) for result in floors)[TIMES // 2]
    log(f"{events:,} events of a {trail} evaluated, {TIMES} times.")
    return Evaluation(
        events=events,
        floor=floor,
        wall=median_run["wall"],
        cpu=median_run["cpu"],
        peak=median_run["peak"],
        alerts=median_run["alerts"],
    )
