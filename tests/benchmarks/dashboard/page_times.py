"""How fast the trail's pages and the desk are on a large trail, beside a usual ModelAdmin on the same table."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.benchmarks.audit.processes import database, environment_of, process
from tests.benchmarks.worker_protocol import orders_to

SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.benchmarks.dashboard.settings"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What a page took on the server: milliseconds, the median, those of its CPU, the mean, and queries."""

    ms: float
    cpu: float
    queries: int


def measure_looking(*, url: str, events: int, rounds: int, told: Callable[[str], None]) -> dict[str, Looked]:
    """Return what each page took. url: of the PostgreSQL server."""
    with database(url) as name:
        with process("tests.benchmarks.dashboard.job", **{**environment_of("ours", url, name), **SETTINGS}) as running:
            orders_to(running)("fill", events)
        told(f"{events:,} events built, to be looked at.")
        # Another one, that holds nothing of what was written.
        with process("tests.benchmarks.dashboard.job", **{**environment_of("ours", url, name), **SETTINGS}) as running:
            return {page: Looked(**took) for page, took in orders_to(running)("look", rounds).items()}
