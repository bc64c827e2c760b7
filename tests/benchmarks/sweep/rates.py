"""Measures the rates: of sweeps at several round trips, of four sweeps at once, and of ending many sessions."""

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from tests.benchmarks.audit.processes import database, process, read_line
from tests.benchmarks.sign_in.measurement import _ask
from tests.benchmarks.worker_protocol import command_runner, send_command
from tests.support.tls import create_certificate_authority

WORKERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How many tokens or sessions were done in how many seconds."""

    count: int
    wall: float
    cpu: float
    """Of the measured processes."""
    repeated: int = 0
    """Requests for a token that was asked for before."""

    @property
    def per_second(self) -> float:
        return self.count / self.wall


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The results of one run."""

    sweeps: dict[float, Rate]
    """Of one worker, by the round trip in seconds."""
    at_once: Rate
    """Of four workers, at the last round trip."""
    logout: Rate
    bulk: Rate


def measure_sweep(
    *,
    url: str,
    round_trips: Sequence[float],
    seconds: int,
    logged_out: int,
    ended: int,
    log: Callable[[str], None],
) -> Results:
    """Return the rates. url: of the PostgreSQL server. seconds: of each sweep. logged_out, ended: sessions.

    Raises: AssertionError if a session or an event of its end is missing.
    """
    sweeps = {}
    for round_trip in round_trips:
        sweeps[round_trip] = measure_workers(url=url, workers=1, round_trip=round_trip, seconds=seconds)
        log(f"{sweeps[round_trip].per_second:,.0f} tokens a second at {round_trip * 1000:.0f} ms.")
    at_once = measure_workers(url=url, workers=WORKERS, round_trip=round_trips[-1], seconds=seconds)
    log(f"{at_once.per_second:,.0f} tokens a second of {WORKERS} workers, {at_once.repeated} requests repeated.")
    logout = measure_end(url=url, command="log_out", sessions=logged_out)
    log(f"{logout.count:,} sessions logged out in {logout.wall:.1f} s.")
    bulk = measure_end(url=url, command="end_all", sessions=ended)
    log(f"{bulk.per_second:,.0f} sessions a second ended by a job.")
    return Results(sweeps=sweeps, at_once=at_once, logout=logout, bulk=bulk)


def measure_workers(*, url: str, workers: int, round_trip: float, seconds: int) -> Rate:
    """Return the rate of that many workers that sweep at once, with more tokens than they can revoke."""
    with running_jobs(url, workers) as (running, control):
        run = command_runner(running[0])
        run("migrate")
        run("queue", 1_000 * seconds)
        _ask(control, f"/round-trip?{urlencode({'seconds': round_trip})}")
        waits = [send_command(worker, "sweep", seconds) for worker in running]
        results = [wait() for wait in waits]
        counts = json.loads(_ask(control, "/tokens").body)
        left = run("left")
    count = sum(result["count"] for result in results)
    assert left["revoked"] == count, (left, count)
    return Rate(
        count=count,
        wall=max(result["wall"] for result in results),
        cpu=sum(result["cpu"] for result in results),
        repeated=counts["asked"] - counts["different"],
    )


def measure_end(*, url: str, command: str, sessions: int) -> Rate:
    """Return the rate of a command that ends so many sessions of one person, all of them."""
    with running_jobs(url, 1) as (running, _):
        run = command_runner(running[0])
        run("migrate")
        run("sign_in", sessions)
        result = run(command)
        left = run("left")
    assert result["count"] == sessions, result
    assert left == {"live": 0, "django": 0, "due": 2 * sessions, "ended": sessions, "revoked": 0, "waiting": 0}, left
    return Rate(**result)


@contextmanager
def running_jobs(
    url: str, workers: int, *, job: str = "tests.benchmarks.sweep.job", **further_environment: str
) -> Iterator[tuple[list[subprocess.Popen[str]], str]]:
    """Run a provider and that many workers with one database; yield them, and the address to control the provider."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="phi-oidc-bench-")))
        authority = create_certificate_authority(directory, "bench")
        certificate = authority.create_server_certificate("127.0.0.1")
        provider = stack.enter_context(process("tests.benchmarks.sweep.provider", str(certificate)))
        for_portals, for_measuring = read_line(provider).split()
        environment = {
            "DJANGO_SETTINGS_MODULE": "tests.benchmarks.sign_in.settings",
            "BENCH_APPS": "django_phi_oidc.contrib.officer_admin",
            "BENCH_CONTENDER": "phi_oidc",
            "BENCH_DATABASE_URL": url,
            "BENCH_DATABASE_NAME": stack.enter_context(database(url)),
            "BENCH_ISSUER": f"https://127.0.0.1:{for_portals}",
            "BENCH_CA_BUNDLE": authority.certificate_path,
        }
        environment |= further_environment
        jobs = [stack.enter_context(process(job, **environment)) for _ in range(workers)]
        yield jobs, f"127.0.0.1:{for_measuring}"
