from datetime import timedelta

import pytest

from django_phi_oidc._internal.retry import compute_backoff
from django_phi_oidc.sessions.timeouts import SessionTimes, find_timeout_reason, is_activity_update_due


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(1599.9, "", id="just before"),
        pytest.param(1600, "idle_timeout", id="idle for 600 s"),
        pytest.param(1999.9, "idle_timeout", id="idle for longer"),
        pytest.param(2000, "absolute_timeout", id="both: the absolute limit is reported"),
    ],
)
def test_session_times_out_at_the_limit(now: float, expected: str) -> None:
    assert (
        find_timeout_reason(
            SessionTimes(started_timestamp=0, last_seen_timestamp=1000, last_checked_timestamp=0),
            now_timestamp=now,
            idle_timeout_seconds=600,
            absolute_timeout_seconds=2000,
        )
        == expected
    )


def test_absolute_timeout_counts_from_the_start_despite_activity() -> None:
    times = SessionTimes(started_timestamp=500, last_seen_timestamp=2499, last_checked_timestamp=0)
    assert (
        find_timeout_reason(times, now_timestamp=2499.9, idle_timeout_seconds=600, absolute_timeout_seconds=2000) == ""
    )
    assert (
        find_timeout_reason(times, now_timestamp=2500, idle_timeout_seconds=600, absolute_timeout_seconds=2000)
        == "absolute_timeout"
    )


@pytest.mark.parametrize(
    ("idle", "since", "noted"),
    [
        pytest.param(900, 59.9, False, id="within the minute"),
        pytest.param(900, 60, True, id="after a minute"),
        pytest.param(300, 29.9, False, id="within a tenth of a short idle timeout"),
        pytest.param(300, 30, True, id="after a tenth"),
    ],
)
def test_activity_update_is_due_each_minute_or_tenth_of_the_idle_timeout(
    idle: float, since: float, noted: bool
) -> None:
    assert (
        is_activity_update_due(
            SessionTimes(started_timestamp=0, last_seen_timestamp=1000, last_checked_timestamp=0),
            now_timestamp=1000 + since,
            idle_timeout_seconds=idle,
        )
        is noted
    )


@pytest.mark.parametrize(
    ("attempts", "slowly", "expected"),
    [
        (1, False, timedelta(seconds=10)),
        (2, False, timedelta(seconds=20)),
        (3, False, timedelta(seconds=40)),
        (9, False, timedelta(seconds=2560)),
        (10, False, timedelta(hours=1)),
        (100_000, False, timedelta(hours=1)),
        (1, True, timedelta(minutes=30)),
        (2, True, timedelta(hours=1)),
    ],
)
def test_back_off_without_jitter_doubles_up_to_an_hour(attempts: int, slowly: bool, expected: timedelta) -> None:
    assert compute_backoff(attempts=attempts, needs_operator=slowly, retry_after=None, jitter_fraction=0.0) == expected


def test_back_off_with_maximal_jitter_is_half() -> None:
    assert compute_backoff(attempts=2, needs_operator=False, retry_after=None, jitter_fraction=1.0) == timedelta(
        seconds=10
    )


def test_back_off_respects_a_longer_retry_after() -> None:
    assert compute_backoff(
        attempts=1, needs_operator=False, retry_after=timedelta(minutes=2), jitter_fraction=0.5
    ) == timedelta(minutes=2)


def test_back_off_ignores_a_shorter_retry_after() -> None:
    assert compute_backoff(
        attempts=1, needs_operator=False, retry_after=timedelta(seconds=1), jitter_fraction=0.0
    ) == timedelta(seconds=10)
