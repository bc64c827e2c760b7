"""Throughput of key rotation, and cost of encryption compared with Fernet, each in a separate process."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.audit.processes import database, process
from tests.benchmarks.worker_protocol import command_runner

NAIVE_SHARE = 10
"""The naive contender has a tenth of the texts, since it would take minutes."""
TIMES = 3
"""Number of runs of our contender; the median counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """The cost of a rotation; seconds."""

    texts: int
    wall: float
    cpu: float
    """CPU of the rotating process."""
    counted: float = 0.0
    """Time of counting the texts by key."""
    peak: int = 0
    """Peak memory of the process in bytes; 0 if not measured."""

    @property
    def rate(self) -> float:
        """Texts per second."""
        return self.texts / self.wall


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Seconds per call for one kind of text."""

    bytes: int
    """Length of the plaintext."""
    seal: float
    encrypt: float
    """The same bytes with Fernet."""
    open_sealed: float
    decrypt: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The results of one run."""

    rotated: dict[str, Took]
    """By contender."""
    small: Took
    """Our contender with a tenth of the texts, to compare the memory."""
    comparisons: dict[str, Comparison]
    """By kind of text."""


def measure_encryption(*, url: str, texts: int, log: Callable[[str], None]) -> Results:
    """Return the results. url: of the PostgreSQL server."""
    small = _rotate("phi_oidc", url, texts // NAIVE_SHARE)
    rotated = {"floor": _rotate("floor", url, texts)}
    log(f"{texts:,} texts replaced without encryption.")
    rotated["phi_oidc"] = sorted((_rotate("phi_oidc", url, texts) for _ in range(TIMES)), key=lambda took: took.rate)[
        TIMES // 2
    ]
    log(f"{texts:,} texts rotated, {TIMES} times.")
    rotated["naive"] = _rotate("naive", url, texts // NAIVE_SHARE)
    log(f"{texts // NAIVE_SHARE:,} texts rotated with model instances.")
    with database(url) as name:
        comparisons = {kind: Comparison(**took) for kind, took in _run(url, name, "ratio").items()}
    return Results(rotated=rotated, small=small, comparisons=comparisons)


def _rotate(contender: str, url: str, texts: int) -> Took:
    """Return the cost of the contender, in a new database built by another process."""
    with database(url) as name:
        _run(url, name, "build", texts)
        took = Took(**_run(url, name, contender))
    assert took.texts == texts, (contender, took)
    return took


def _run(url: str, name: str, *command: object) -> dict[str, Any]:
    environment = {
        "DJANGO_SETTINGS_MODULE": "tests.benchmarks.encryption.settings",
        "BENCH_DATABASE_URL": url,
        "BENCH_DATABASE_NAME": name,
    }
    with process("tests.benchmarks.encryption.job", **environment) as running:
        return command_runner(running)(*command)
