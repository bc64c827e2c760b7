"""Session timeouts as pure functions of times, without Django."""

from typing import Literal, NamedTuple

ACTIVITY_UPDATE_SECONDS = 60.0
"""An activity is stored at most this often, or every tenth of the idle timeout if that is
shorter.
"""


class SessionTimes(NamedTuple):
    """The times in a Django session, in POSIX seconds."""

    started_timestamp: float
    last_seen_timestamp: float
    """The last stored activity."""
    last_checked_timestamp: float
    """When the row was last read."""


def find_timeout_reason(
    times: SessionTimes,
    *,
    now_timestamp: float,
    idle_timeout_seconds: float,
    absolute_timeout_seconds: float,
) -> Literal["idle_timeout", "absolute_timeout", ""]:
    """Return why a session has timed out, or empty."""
    if now_timestamp - times.started_timestamp >= absolute_timeout_seconds:
        return "absolute_timeout"
    if now_timestamp - times.last_seen_timestamp >= idle_timeout_seconds:
        return "idle_timeout"
    return ""


def is_activity_update_due(
    times: SessionTimes, *, now_timestamp: float, idle_timeout_seconds: float
) -> bool:
    """Say whether an activity must be stored. Activities in between are not, which saves a write
    for each.
    """
    return now_timestamp - times.last_seen_timestamp >= min(
        ACTIVITY_UPDATE_SECONDS, idle_timeout_seconds / 10
    )
