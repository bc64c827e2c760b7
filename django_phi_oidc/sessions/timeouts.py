"""When a session is over, and when a revocation is tried again: pure functions of times. No Django."""

from datetime import timedelta
from typing import Literal, NamedTuple

ACTIVITY_UPDATE_SECONDS = 60.0
"""Seconds between two notes of an activity, at most; a tenth of the idle timeout where that is less."""


class SessionTimes(NamedTuple):
    """What a Django session remembers, in POSIX seconds."""

    started_timestamp: float
    last_seen_timestamp: float
    """The last activity that was noted."""
    last_checked_timestamp: float
    """The last look at the row."""


def find_timeout_reason(
    times: SessionTimes, *, now_timestamp: float, idle_timeout_seconds: float, absolute_timeout_seconds: float
) -> Literal["idle_timeout", "absolute_timeout", ""]:
    """Return why a session is over at now, or nothing while it lives. idle, absolute: seconds."""
    if now_timestamp - times.started_timestamp >= absolute_timeout_seconds:
        return "absolute_timeout"
    return "idle_timeout" if now_timestamp - times.last_seen_timestamp >= idle_timeout_seconds else ""


def is_activity_update_due(times: SessionTimes, *, now_timestamp: float, idle_timeout_seconds: float) -> bool:
    """Say whether an activity at now is to be noted; those in between are not, which is a write less for each."""
    return now_timestamp - times.last_seen_timestamp >= min(ACTIVITY_UPDATE_SECONDS, idle_timeout_seconds / 10)


def is_abandoned(*, waited: timedelta, give_up_after: timedelta) -> bool:
    """Say whether a revocation that failed once more after waited is abandoned."""
    return waited >= give_up_after
