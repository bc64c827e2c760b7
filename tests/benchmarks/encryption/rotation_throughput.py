"""How fast encryption keys are rotated, and what sealing costs beside Fernet, each in a process of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.audit.processes import database, process
from tests.benchmarks.worker_protocol import orders_to

NAIVE_SHARE = 10
"""The naive way has a tenth of the texts: it would take minutes."""
TIMES = 3
"""Ours is measured so often, and the median counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """What a rotation took; seconds."""

    texts: int
    wall: float
    cpu: float
    """Of the rotating process."""
    counted: float = 0.0
    """What counting them by key took, once."""
    peak: int = 0
    """Bytes of memory of the process; 0 where it was not asked for."""

    @property
    def rate(self) -> float:
        """Texts per second."""
        return self.texts / self.wall


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What a call takes, in seconds, for one kind of text."""

    bytes: int
    """Of what is encrypted."""
    seal: float
    encrypt: float
    """The same bytes, by Fernet itself."""
    open_sealed: float
    decrypt: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Of one run."""

    rotated: dict[str, Took]
    """By contender."""
    small: Took
    """Ours, with a tenth of the texts: for the memory."""
    beside: dict[str, Beside]
    """By kind of text."""


def measure_sealing(*, url: str, texts: int, told: Callable[[str], None]) -> Results:
    """Return what came of it. url: of the PostgreSQL server."""
    small = _rotate("ours", url, texts // NAIVE_SHARE)
    rotated = {"floor": _rotate("floor", url, texts)}
    told(f"{texts:,} texts replaced, without sealing.")
    rotated["ours"] = sorted((_rotate("ours", url, texts) for _ in range(TIMES)), key=lambda took: took.rate)[
        TIMES // 2
    ]
    told(f"{texts:,} texts rotated, {TIMES} times.")
    rotated["naive"] = _rotate("naive", url, texts // NAIVE_SHARE)
    told(f"{texts // NAIVE_SHARE:,} texts rotated by instances.")
    with database(url) as name:
        beside = {kind: Beside(**took) for kind, took in _order(url, name, "ratio").items()}
    return Results(rotated=rotated, small=small, beside=beside)


def _rotate(contender: str, url: str, texts: int) -> Took:
    """Return what the contender's process took, in a database of its own that another process has built."""
    with database(url) as name:
        _order(url, name, "build", texts)
        took = Took(**_order(url, name, contender))
    assert took.texts == texts, (contender, took)
    return took


def _order(url: str, name: str, *order: object) -> dict[str, Any]:
    environment = {
        "DJANGO_SETTINGS_MODULE": "tests.benchmarks.encryption.settings",
        "BENCH_DATABASE_URL": url,
        "BENCH_DATABASE_NAME": name,
    }
    with process("tests.benchmarks.encryption.job", **environment) as running:
        return orders_to(running)(*order)
