"""Throughput, CPU time and errors of the portals under gunicorn, which take turns."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count

import psycopg

from tests.benchmarks.deployment.browsers import BEGIN, LEAVE, TurnResult
from tests.benchmarks.deployment.portals import Deployment, Portal, cpu_seconds_of, deployed, redis_server

ROUND_TRIPS = (0.0, 0.02)
NEW_PEOPLE = count(1_000_000)
"""Numbers of people that no portal has seen."""
PASSES_OF_PAGES = 40
SIZE = "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r'"
WAL_POSITION = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"
BACKENDS = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
    AND inet_server_addr() IS NULL
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredTurn:
    """The cost of one turn of a portal."""

    visits: int
    seconds: float
    cpu_seconds: float
    """Of gunicorn and its workers."""
    database_cpu_seconds: float
    """Of PostgreSQL's processes for this portal; 0 if they run on another machine."""
    wal_bytes: float
    requests: int
    """To the provider."""
    visit_seconds: list[float]
    errors: list[str]

    @property
    def per_second(self) -> float:
        return self.visits / self.seconds


@dataclass(slots=True)
class Results:
    """The turns by scenario, round-trip time in seconds and contender; and what a portal keeps."""

    turns: dict[tuple[str, float], dict[str, list[MeasuredTurn]]] = field(default_factory=dict)
    kept_bytes: dict[str, float] = field(default_factory=dict)
    """Growth of all tables with their indexes for each sign-in of a returning person."""
    worker_bytes: dict[str, float] = field(default_factory=dict)
    """Memory of a worker process after all turns."""


class Measurement:
    """One run."""

    def __init__(
        self, *, url: str, turns: int, visits: int, round_trips: Sequence[float], log: Callable[[str], None]
    ) -> None:
        self._url, self._turns, self._log = url, turns, log
        self._people = range(visits)
        self._round_trips = round_trips
        self._passes = Counter[str]()
        self.results = Results()

    def run(self, contenders: Sequence[str]) -> Results:
        """Measure all scenarios."""
        with deployed(contenders, url=self._url) as deployment:
            self._warm_up(deployment)
            for round_trip in self._round_trips:
                deployment.op.set_round_trip(round_trip)
                with self._growing(deployment, is_measured=round_trip == 0):
                    self._measure("returning", round_trip, deployment, self._sign_in_again)
                self._measure("new", round_trip, deployment, self._sign_in_first)
                self._measure("logout", round_trip, deployment, self._log_out)
            deployment.op.set_round_trip(0)
            self._measure("page", 0, deployment, self._open_pages)
            for portal in deployment.portals:
                self.results.worker_bytes[portal.contender] = portal.worker_bytes()
        with redis_server() as redis_url, deployed(list(LEAVE), url=self._url, redis_url=redis_url) as deployment:
            self._warm_up(deployment)
            for round_trip in self._round_trips:
                deployment.op.set_round_trip(round_trip)
                self._measure("returning, Redis", round_trip, deployment, self._sign_in_again)
        return self.results

    def _warm_up(self, deployment: Deployment) -> None:
        """Make all people known, and fill the caches of each process."""
        for portal in deployment.portals:
            _check(deployment.load.run(portal, "sign_in", self._people))

    @contextmanager
    def _growing(self, deployment: Deployment, *, is_measured: bool) -> Iterator[None]:
        before = {portal.contender: self._size_of(portal) for portal in deployment.portals}
        yield
        if is_measured:
            for portal in deployment.portals:
                grown = self._size_of(portal) - before[portal.contender]
                self.results.kept_bytes[portal.contender] = grown / (self._turns * len(self._people))

    def _size_of(self, portal: Portal) -> int:
        (size,) = self._ask(SIZE, portal)
        return int(size)

    def _database_cpu_seconds(self, portal: Portal) -> float:
        seconds = 0.0
        for pid in self._ask(BACKENDS, portal):
            # Its connection may just have been closed.
            with suppress(FileNotFoundError):
                seconds += cpu_seconds_of(pid)
        return seconds

    def _wal_position(self, portal: Portal) -> int:
        (position,) = self._ask(WAL_POSITION, portal)
        return int(position)

    def _ask(self, query: str, portal: Portal) -> list[int]:
        with psycopg.connect(self._url, dbname=portal.database) as server:
            return [row[0] for row in server.execute(query.encode()).fetchall()]

    def _measure(
        self,
        scenario: str,
        round_trip: float,
        deployment: Deployment,
        take_turn: Callable[[Deployment, Portal], Callable[[], TurnResult]],
    ) -> None:
        """Take turns, each with another portal first. take_turn prepares a turn, and returns what is measured."""
        portals = [each for each in deployment.portals if scenario != "logout" or each.contender in LEAVE]
        measured = {portal.contender: list[MeasuredTurn]() for portal in portals}
        for number in range(self._turns):
            shift = number % len(portals)
            for portal in (*portals[shift:], *portals[:shift]):
                run = take_turn(deployment, portal)
                turn = self._measure_turn(deployment, portal, run)
                if scenario == "logout":
                    turn.errors.extend(deployment.load.run(portal, "signed_out", self._people).errors)
                measured[portal.contender].append(turn)
        self.results.turns[scenario, round_trip] = measured
        self._log(f"{self._turns} turns of {scenario} at {round_trip * 1000:.0f} ms.")

    def _measure_turn(self, deployment: Deployment, portal: Portal, run: Callable[[], TurnResult]) -> MeasuredTurn:
        wal, requests = self._wal_position(portal), deployment.op.counts()[0]
        database_cpu, cpu = self._database_cpu_seconds(portal), portal.cpu_seconds()
        result = run()
        return MeasuredTurn(
            visits=len(result.seconds),
            seconds=result.ended_at - result.started_at,
            cpu_seconds=portal.cpu_seconds() - cpu,
            database_cpu_seconds=self._database_cpu_seconds(portal) - database_cpu,
            wal_bytes=self._wal_position(portal) - wal,
            requests=deployment.op.counts()[0] - requests,
            visit_seconds=result.seconds,
            errors=result.errors,
        )

    def _sign_in_again(self, deployment: Deployment, portal: Portal) -> Callable[[], TurnResult]:
        return lambda: deployment.load.run(portal, "sign_in", self._people)

    def _sign_in_first(self, deployment: Deployment, portal: Portal) -> Callable[[], TurnResult]:
        people = [next(NEW_PEOPLE) for _ in self._people]
        return lambda: deployment.load.run(portal, "sign_in", people)

    def _log_out(self, deployment: Deployment, portal: Portal) -> Callable[[], TurnResult]:
        _check(deployment.load.run(portal, "sign_in", self._people))
        return lambda: deployment.load.run(portal, "logout", self._people)

    def _open_pages(self, deployment: Deployment, portal: Portal) -> Callable[[], TurnResult]:
        first = self._passes[portal.contender]
        if not first:
            _check(deployment.load.run(portal, "sign_in", self._people))
        self._passes[portal.contender] += PASSES_OF_PAGES
        return lambda: deployment.load.run(portal, "page", self._people, passes=PASSES_OF_PAGES, first_pass=first + 1)


def _check(result: TurnResult) -> None:
    """Raises: AssertionError if a visit that is only a preparation failed."""
    assert not result.errors, result.errors[:3]


def measure_deployment(
    *,
    url: str,
    turns: int,
    visits: int,
    log: Callable[[str], None],
    contenders: Sequence[str] = tuple(BEGIN),
    round_trips: Sequence[float] = ROUND_TRIPS,
) -> Results:
    """Return the results. url: of the PostgreSQL server. visits: of each turn."""
    measurement = Measurement(url=url, turns=turns, visits=visits, round_trips=round_trips, log=log)
    return measurement.run(contenders)
