"""Backoff of requests that failed."""

from datetime import timedelta

INITIAL_DELAY = timedelta(seconds=10)
MAX_DELAY = timedelta(hours=1)
OPERATOR_DELAY = timedelta(minutes=30)
"""For failures that an operator must fix first: a rejected client, a missing key."""


def compute_backoff(
    *, attempts: int, needs_operator: bool, retry_after: timedelta | None, jitter_fraction: float
) -> timedelta:
    """Return the delay after that many attempts (1 or more): at least retry_after, which the
    provider requested.

    The delay doubles from 10 s (needs_operator: half an hour) up to an hour. jitter_fraction, a
    random number in [0, 1), shortens it by up to half, so that rows that failed together are not
    retried together.
    """
    doubled: int = 2 ** min(attempts - 1, 16)
    wait = (OPERATOR_DELAY if needs_operator else INITIAL_DELAY) * doubled
    wait = min(wait, MAX_DELAY) * (1 - jitter_fraction / 2)
    return max(wait, retry_after or timedelta(0))
