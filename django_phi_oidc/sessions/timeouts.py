"""When a session is over, and when a revocation is tried again: pure functions of times. No Django."""

from datetime import timedelta
from typing import Literal, NamedTuple

LONGEST_STALE = 60.0
"""Seconds between two notes of an activity, at most; a tenth of the idle timeout where that is less."""


class Times(NamedTuple):
    """What a Django session remembers, in POSIX seconds."""

    started: float
    seen: float
    """The last activity that was noted."""
    checked: float
    """The last look at the row."""


def over(times: Times, *, now: float, idle: float, absolute: float) -> Literal["idle_timeout", "absolute_timeout", ""]:
    """Return why a session is over at now, or nothing while it lives. idle, absolute: seconds."""
    if now - times.started >= absolute:
        return "absolute_timeout"
    return "idle_timeout" if now - times.seen >= idle else ""


def is_noted(times: Times, *, now: float, idle: float) -> bool:
    """Say whether an activity at now is to be noted; those in between are not, which is a write less for each."""
    return now - times.seen >= min(LONGEST_STALE, idle / 10)


FIRST_WAIT = timedelta(seconds=10)
LONGEST_WAIT = timedelta(hours=1)
SLOW_WAIT = timedelta(minutes=30)
"""For what a person must mend first: a rejected client, a missing key."""


def back_off(*, attempts: int, slowly: bool, asked: timedelta | None, fraction: float) -> timedelta:
    """Return how long to wait after that many attempts (1 or more); never less than the OP asked for.

    Doubles from 10 s up to an hour; slowly starts at half an hour. fraction, a random number in [0, 1), takes up to
    half of it away, so that rows that failed together do not come back together.
    """
    doubled: int = 2 ** min(attempts - 1, 16)
    wait = (SLOW_WAIT if slowly else FIRST_WAIT) * doubled
    wait = min(wait, LONGEST_WAIT) * (1 - fraction / 2)
    return max(wait, asked or timedelta(0))


def is_over(*, waited: timedelta, give_up_after: timedelta) -> bool:
    """Say whether a revocation that failed once more after waited is abandoned."""
    return waited >= give_up_after
