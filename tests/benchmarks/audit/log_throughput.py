"""How fast a trail is sealed and verified, each in a process of its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.benchmarks.audit.processes import database, environment_of, process
from tests.benchmarks.worker_protocol import Order, orders_to


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """What an order took; CPU in seconds."""

    events: int
    wall: float
    cpu: float
    server_cpu: float | None
    peak: int = 0
    """Bytes of memory of the process; 0 where it was not asked for."""

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.wall


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """What was measured."""

    backlog: Took
    """Sealing it all."""
    verified: list[Took]
    """The same events, verified, each time by another process."""
    sealed: int
    """Leaves of the large log."""
    on_top: Took
    """Sealing what is new on top of it."""


def measure_trail(
    *, url: str, backlog: int, verifications: int, sealed: int, new: int, told: Callable[[str], None]
) -> Trail:
    """Return what sealing and verifying took. url: of the server.

    Raises: AssertionError where an event is not sealed, a whole log has findings, or one altered event goes unnoticed.
    """
    with database(url) as name:
        took, verified = _seal_and_verify(url, name, backlog, verifications, told)
    with database(url) as name, _working(url, name) as order:
        order("migrate")
        told(f"{sealed:,} sealed events built in {order('build_sealed', sealed)['wall']:.0f} s.")
        order("build_genuine", new)
        on_top = order("seal")
        assert (on_top["events"], on_top.pop("refused")) == (new, 0), on_top
        told(f"{new:,} new events sealed on top of them.")
    return Trail(backlog=took, verified=verified, sealed=sealed, on_top=Took(**on_top))


def _seal_and_verify(
    url: str, name: str, backlog: int, verifications: int, told: Callable[[str], None]
) -> tuple[Took, list[Took]]:
    with _working(url, name) as order:
        order("migrate")
        told(f"{backlog:,} events built in {order('build_genuine', backlog)['wall']:.0f} s.")
        took = order("seal")
        assert (took["events"], took.pop("refused")) == (backlog, 0), took
        told(f"{backlog:,} events sealed.")
    verified = []
    for _ in range(verifications):
        with _working(url, name) as order:
            found = order("verify")
            assert (found["events"], found.pop("found")) == (backlog, []), found
            verified.append(Took(**found))
    with _working(url, name) as order:
        altered = order("tamper")["event"]
        found = order("verify")["found"]
        assert found == [f"event_altered: {altered}"], found
    told(f"{backlog:,} events verified, {verifications} times and once with an altered one.")
    return Took(**took), verified


@contextmanager
def _working(url: str, name: str) -> Iterator[Order]:
    """Yield what gives an order to a new process and returns its answer."""
    with process("tests.benchmarks.audit.job", **environment_of("ours", url, name)) as running:
        yield orders_to(running)
