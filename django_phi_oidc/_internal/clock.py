"""The one seam for the current time. Edges call `now()`; everything below takes `now` as an argument."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime


def _get_system_time() -> datetime:
    return datetime.now(UTC)


_source: Callable[[], datetime] = _get_system_time


def now() -> datetime:
    """Return the current time, aware, in UTC."""
    return _source()


@contextmanager
def override_clock(source: Callable[[], datetime]) -> Iterator[None]:
    """Take the time from source, in this process, for the length of the block: for tests."""
    global _source  # noqa: PLW0603 -- the seam is this one variable
    before, _source = _source, source
    try:
        yield
    finally:
        _source = before
