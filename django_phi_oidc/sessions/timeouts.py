"""When a revocation is tried again: pure functions of times. No Django."""

from datetime import timedelta

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
