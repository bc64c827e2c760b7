"""How long to wait before the next attempt of a request that failed. Pure functions of times."""

from datetime import timedelta

INITIAL_DELAY = timedelta(seconds=10)
MAX_DELAY = timedelta(hours=1)
OPERATOR_DELAY = timedelta(minutes=30)
"""For what a person must mend first: a rejected client, a missing key."""


def compute_backoff(
    *, attempts: int, needs_operator: bool, retry_after: timedelta | None, jitter_fraction: float
) -> timedelta:
    """Return how long to wait after that many attempts (1 or more); never less than the OP asked for.

    Doubles from 10 s up to an hour; slowly starts at half an hour. fraction, a random number in [0, 1), takes up to
    half of it away, so that rows that failed together do not come back together.
    """
    doubled: int = 2 ** min(attempts - 1, 16)
    wait = (OPERATOR_DELAY if needs_operator else INITIAL_DELAY) * doubled
    wait = min(wait, MAX_DELAY) * (1 - jitter_fraction / 2)
    return max(wait, retry_after or timedelta(0))
