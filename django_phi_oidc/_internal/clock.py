"""The current time. Views, tasks and commands call `now()`; all other code gets `now` as an
argument.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime

from .overrides import override_global


def _get_system_time() -> datetime:
    return datetime.now(UTC)


_source: Callable[[], datetime] = _get_system_time


def now() -> datetime:
    """Return the current time, aware, in UTC."""
    return _source()


def override_clock(source: Callable[[], datetime]) -> AbstractContextManager[None]:
    """Take the time from source in this process, for the length of the block: for tests."""
    return override_global(globals(), "_source", source)
