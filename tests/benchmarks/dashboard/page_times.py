"""Response times of the audit pages and the dashboard on a large audit log, and of a plain ModelAdmin."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.benchmarks.audit.processes import database, environment_of, process
from tests.benchmarks.worker_protocol import command_runner

SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.benchmarks.dashboard.settings"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PageCost:
    """The cost of a page on the server: median milliseconds, mean CPU milliseconds, and queries."""

    ms: float
    cpu: float
    queries: int


def measure_pages(
    *, url: str, events: int, sessions: int, rounds: int, log: Callable[[str], None]
) -> dict[str, PageCost]:
    """Return the cost of each page. url: of the PostgreSQL server."""
    with database(url) as name:
        with process(
            "tests.benchmarks.dashboard.job", **{**environment_of("phi_oidc", url, name), **SETTINGS}
        ) as running:
            command_runner(running)("fill", events, sessions)
        log(f"{events:,} events and {sessions:,} sessions built.")
        # A new process without data from writing.
        with process(
            "tests.benchmarks.dashboard.job", **{**environment_of("phi_oidc", url, name), **SETTINGS}
        ) as running:
            return {page: PageCost(**took) for page, took in command_runner(running)("look", rounds).items()}
