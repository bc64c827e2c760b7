"""Measures the time from `active: false` to the refused request and the revoked tokens."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from tests.benchmarks.sign_in.measurement import _ask
from tests.benchmarks.sweep.rates import running_jobs
from tests.benchmarks.worker_protocol import command_runner, send_command

PER_SECOND = 50
WARM_UP = 25
"""In each process."""
APPS = ("django_phi_oidc.contrib.role_mapping", "django_phi_oidc.contrib.scim")
PROCESSES = 2
"""Of the portal. A process has at most two requests to the provider at once (`max_concurrent_calls`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """The times of one run."""

    round_trip: float
    """Of the provider, in seconds."""
    seconds: Sequence[float] = field(repr=False)
    """Of each person, sorted."""
    late: int
    """Tokens that were not revoked when the last person was out."""

    def get_percentile(self, percent: float) -> float:
        return self.seconds[min(len(self.seconds) - 1, int(len(self.seconds) * percent / 100))]


def measure_leavers(
    *, url: str, people: int, leavers: int, round_trips: Sequence[float], log: Callable[[str], None]
) -> list[Latencies]:
    """Return the times by the round trip. url: of the PostgreSQL server.

    Raises: AssertionError if a person stays signed in, or a token was not asked for.
    """
    results = []
    options = {"job": "tests.benchmarks.leavers.job", "BENCH_APPS": " ".join(APPS)}
    with running_jobs(url, PROCESSES, **options) as (running, control):
        command_runner(running[0])("migrate")

        def run(*command: object) -> list[dict[str, Any]]:
            waits = [send_command(portal, *command) for portal in running]
            return [wait() for wait in waits]

        run("provision", people // PROCESSES)
        run("disable", WARM_UP, PER_SECOND // PROCESSES)
        for round_trip in round_trips:
            _ask(control, f"/round-trip?{urlencode({'seconds': round_trip})}")
            measured = run("disable", leavers // PROCESSES, PER_SECOND // PROCESSES)
            seconds = sorted(item for result in measured for item in result["seconds"])
            asked = json.loads(_ask(control, "/tokens").body)
            late = command_runner(running[0])("left")["waiting"]
            assert asked["different"] + late >= 2 * len(seconds), (asked, late)
            results.append(Latencies(round_trip=round_trip, seconds=seconds, late=late))
            log(f"p99 {results[-1].get_percentile(99) * 1000:.0f} ms at a round trip of {round_trip * 1000:.0f} ms.")
    return results
