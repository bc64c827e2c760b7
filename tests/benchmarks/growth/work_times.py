"""Times of the periodic tasks, the lists and mass logouts with as many rows as a hospital has."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.benchmarks.audit.processes import database, environment_of, process
from tests.benchmarks.worker_protocol import Command, command_runner, send_command

SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.benchmarks.growth.settings"}
SIGN_IN_MS = 3_000
BESIDE = {"beside check_sessions": "check", "beside the bulk end": "bulk"}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkTime:
    """The time of some work, and of its floor in the same run: what PostgreSQL needs for the least of it."""

    seconds: float
    floor: float
    count: int = 0
    """Rows that it changed; 0: it found nothing to do."""
    statements: int = 0

    @property
    def ratio(self) -> float:
        """How many times the floor."""
        return self.seconds / self.floor

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.count / self.seconds


def measure_growth(
    *, url: str, people: int, sessions: int, many: int, ended: int, log: Callable[[str], None]
) -> dict[str, WorkTime]:
    """Return the time of each work. sessions: live ones, and as many ended ones.

    many: sessions of a back-channel logout, and lost ones. ended: those of the bulk end.
    """
    with database(url) as name:
        with _worker(url, name) as running:
            run = command_runner(running)
            run("fill", people, sessions, sessions)
            run("add", many, ended)
        log(f"{people:,} people, {sessions:,} live and {sessions:,} ended sessions built.")
        return measure_work(url, name)


def measure_work(url: str, name: str) -> dict[str, WorkTime]:
    """Return the time of each work in a database that is built."""
    with _worker(url, name) as running, _worker(url, name) as signing_in:
        run = command_runner(running)
        results = {command: WorkTime(**run(command)) for command in ("overdue", "scrub")}
        results |= {page: WorkTime(**took) for page, took in run("pages").items()}
        alone = command_runner(signing_in)("sign_ins", SIGN_IN_MS)["seconds"]
        for title, command in BESIDE.items():
            beside = send_command(signing_in, "sign_ins", SIGN_IN_MS)
            results[command] = WorkTime(**run(command))
            took = beside()
            results[f"sign-in {title}"] = WorkTime(seconds=took["seconds"], floor=alone)
        return results | {command: WorkTime(**run(command)) for command in ("backchannel", "prune", "lost")}


@contextmanager
def _worker(url: str, name: str) -> Iterator[Command]:
    with process("tests.benchmarks.growth.job", **{**environment_of("phi_oidc", url, name), **SETTINGS}) as running:
        yield running
