"""Throughput of sealing and verifying an audit log, each in a separate process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.benchmarks.audit.processes import database, environment_of, process
from tests.benchmarks.worker_protocol import Command, command_runner


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """The cost of a command; CPU in seconds."""

    events: int
    wall: float
    cpu: float
    server_cpu: float | None
    peak: int = 0
    """Peak memory of the process in bytes; 0 if not measured."""

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.wall


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """The results for one log."""

    backlog: Took
    """Sealing all events."""
    verified: list[Took]
    """Verification of the same events, each time by a new process."""
    floor: Took
    """Reading the same columns in the same order, and hashing their bytes once."""


def measure_log(*, url: str, backlog: int, verifications: int, log: Callable[[str], None]) -> Trail:
    """Return the costs of sealing and verifying. url: of the server.

    Raises: AssertionError if an event is not sealed, an intact log has findings, or a changed event is not found.
    """
    with database(url) as name:
        return _seal_and_verify(url, name, backlog, verifications, log)


def _seal_and_verify(url: str, name: str, backlog: int, verifications: int, log: Callable[[str], None]) -> Trail:
    with _job(url, name) as run:
        run("migrate")
        log(f"{backlog:,} events built in {run('build_genuine', backlog)['wall']:.0f} s.")
        took = run("seal")
        assert (took["events"], took.pop("refused")) == (backlog, 0), took
        log(f"{backlog:,} events sealed.")
    verified = []
    for _ in range(verifications):
        with _job(url, name) as run:
            result = run("verify")
            assert (result["events"], result.pop("found")) == (backlog, []), result
            verified.append(Took(**result))
    with _job(url, name) as run:
        floor = Took(**run("floor"))
        changed = run("tamper")["event"]
        result = run("verify")["found"]
        assert result == [f"event_altered: {changed}"], result
    log(f"{backlog:,} events verified, {verifications} times and once with a changed one.")
    return Trail(backlog=Took(**took), verified=verified, floor=floor)


@contextmanager
def _job(url: str, name: str) -> Iterator[Command]:
    """Start a process and yield a function that runs a command in it."""
    with process("tests.benchmarks.audit.job", **environment_of("phi_oidc", url, name)) as running:
        yield command_runner(running)
