"""Count sign-ins and refusals per hour, and measure once an hour what is stored, for the charts of
the overview.

Counting an hour again replaces its numbers, so a run may be repeated or interrupted, and two
workers may count at the same time. Events may be late: they wait in the outbox while the audit
database is unavailable. So each hour of the last two days is counted again in each new hour. Hours
without a row are counted from the audit log.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from django.db.models import Count, Exists, OuterRef, Q, QuerySet

from ..._internal.randomness import lowest_uuid7
from ...audit import search
from ...audit.events import Action
from ...audit.models import AuditEvent, AuditUnsealed, get_text_end
from ...audit.storage import translate_database_errors
from ...claims.models import StoredClaim
from ...claims.retention_report import get_overdue_condition
from ...sessions.recent_logouts import SIGN_IN_REFUSAL_REASONS
from ..common.overview_parts import overview_trends
from .models import HourlyCount

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
KEPT_DAYS = 35
"""Enough to compare the last 30 days, and yesterday with the same day of the four weeks before."""
LATE_HOURS = 48
SIGN_IN_TIME = timedelta(minutes=1)
"""Longer than the request that signs a user in takes."""
RUN_SECONDS = 20.0
"""For counting missing hours: the next run continues."""
AGE_GROUPS: Mapping[str, timedelta] = {
    "day": timedelta(days=1),
    "week": timedelta(days=7),
    "month": timedelta(days=30),
    "quarter": timedelta(days=90),
}
"""The upper limits of the ages of stored claims; older ones are in the group `older`."""
OLDER = "older"
_Counts = Mapping[tuple[str, str], int]
"""Numbers by series and label."""


class Series(StrEnum):
    """The numbers that are stored per hour."""

    SIGN_INS = "sign_ins"
    REFUSALS = "refusals"
    """By reason. This and the one above are counted from the audit log, the others are measured
    once in each hour.
    """
    LIVE_SESSIONS = "live_sessions"
    REVOCATIONS = "revocations"
    CLAIMS = "claims"
    """By age."""
    OVERDUE = "overdue"
    """Claims that should be erased already. To find them takes a scan of all claims."""
    UNSEALED = "unsealed"


def update_counts(*, now: datetime) -> None:
    """Count the events of the current and the last hour, and in each new hour the late and the
    missing ones.

    Raises: AuditUnavailable.
    """
    current = _get_hour_start(now)
    counted = _list_counted_hours(since=current - KEPT_DAYS * DAY)
    is_new_hour = current not in counted
    if is_new_hour:
        # First, because these do not need the audit database.
        _store(current, _measure(now=now))
        HourlyCount.objects.filter(day__lt=current.date() - timedelta(days=KEPT_DAYS)).delete()
        with translate_database_errors():
            _store(current, {(Series.UNSEALED, ""): AuditUnsealed.objects.count()})
    if is_new_hour:
        recent_hours = LATE_HOURS
    else:
        recent_hours = 2

    recent = set()
    for number in range(recent_hours):
        recent.add(current - number * HOUR)
    hours = [hour for hour in _list_kept_hours(current) if hour in recent or hour not in counted]
    ends_at = time.monotonic() + RUN_SECONDS
    for hour in hours:
        if time.monotonic() >= ends_at:
            break
        _store(hour, _count_events(hour))


def find_last_measurement(series: Series) -> HourlyCount | None:
    """Return the newest number of a series that is measured."""
    return HourlyCount.objects.filter(series=series).order_by("-day", "-hour").first()


def _list_counted_hours(*, since: datetime) -> set[datetime]:
    """Return the hours whose events were counted."""
    rows = HourlyCount.objects.filter(series=Series.SIGN_INS, day__gte=since.date()).values_list(
        "day", "hour"
    )
    counted_hours = set()
    for day, hour in rows:
        counted_hours.add(datetime(day.year, day.month, day.day, hour, tzinfo=UTC))
    return counted_hours


def _list_kept_hours(current: datetime) -> list[datetime]:
    """Return the current hour and those before it that are kept, newest first, back to that of the
    oldest event.
    """
    oldest_id = search.find_oldest_event_id() or lowest_uuid7(current)
    hours = [current]
    for number in range(1, KEPT_DAYS * 24 + 1):
        hour = current - number * HOUR
        if oldest_id < lowest_uuid7(hour + HOUR):
            hours.append(hour)
    return hours


def _get_hour_start(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def count_sign_ins(since: datetime, until: datetime) -> int:
    """Return the number of sign-ins from since until before until. Raises: AuditUnavailable.

    A sign-in whose session ended within SIGN_IN_TIME for one of SIGN_IN_REFUSAL_REASONS was refused
    after its event was committed, and is not counted.
    """
    sign_ins = _filter_by_time(since, until).filter(action=Action.LOGIN_SUCCEEDED)
    ended = _filter_by_time(since, until + SIGN_IN_TIME).filter(
        action=Action.SESSION_ENDED, reason__in=SIGN_IN_REFUSAL_REASONS
    )
    # By the index of the ends of sessions, whose condition is repeated.
    began = sign_ins.alias(session_end=get_text_end("session")).filter(
        session__gt="",
        session_end=get_text_end(OuterRef("session")),
        session=OuterRef("session"),
        occurred_at__gt=OuterRef("occurred_at") - SIGN_IN_TIME,
    )
    with translate_database_errors():
        return sign_ins.count() - ended.filter(Exists(began)).count()


def count_failures_by_reason(since: datetime, until: datetime) -> dict[str, int]:
    """Return the number of events with the outcome `failure`, by reason, in that time. Raises:
    AuditUnavailable.
    """
    # The condition of the partial index is repeated, because SQLite would not use the index
    # otherwise.
    failures = _filter_by_time(since, until).filter(outcome="failure", outcome__lt="success")
    with translate_database_errors():
        return dict(failures.order_by().values_list("reason").annotate(count=Count("pk")))


def _filter_by_time(since: datetime, until: datetime) -> QuerySet[AuditEvent]:
    """Return the events of that time. An id begins with its time."""
    return AuditEvent.objects.filter(id__gte=lowest_uuid7(since), id__lt=lowest_uuid7(until))


def _count_events(hour: datetime) -> _Counts:
    """Return the numbers of events of that hour. Raises: AuditUnavailable."""
    reasons = count_failures_by_reason(hour, hour + HOUR)
    # Each series has at least one row in an hour, which shows that the hour was counted.
    counts: dict[tuple[str, str], int] = {
        (Series.SIGN_INS, ""): count_sign_ins(hour, hour + HOUR),
        (Series.REFUSALS, ""): 0,
    }
    for reason, count in reasons.items():
        counts[Series.REFUSALS, reason] = count
    return counts


def _measure(*, now: datetime) -> _Counts:
    """Return the numbers of what is stored now."""
    counts: dict[tuple[str, str], int] = {}
    for trend in overview_trends:
        if trend.measure:
            counts[trend.series, ""] = trend.measure()
    overdue_claims = StoredClaim.objects.filter(get_overdue_condition(now=now))
    counts[Series.OVERDUE, ""] = overdue_claims.count()
    for group, count in _count_claims_by_age(now=now).items():
        counts[Series.CLAIMS, group] = count
    return counts


def _count_claims_by_age(*, now: datetime) -> Mapping[str, int]:
    """Return the number of stored claims of each age group, by one SELECT."""
    counts = {}
    # The claims that are older than those of the groups before.
    remaining = Q()
    for group, age in AGE_GROUPS.items():
        limit = now - age
        counts[group] = Count("pk", filter=Q(obtained_at__gt=limit) & remaining)
        remaining = Q(obtained_at__lte=limit)
    counts[OLDER] = Count("pk", filter=remaining)
    # Not written out: AGE_GROUPS names the columns.
    return StoredClaim.objects.aggregate(**counts)


def _store(hour: datetime, counts: _Counts) -> None:
    """Insert or replace these numbers of the hour."""
    rows = []
    # In one order, so that two workers do not wait for each other.
    for (series, label), count in sorted(counts.items()):
        rows.append(
            HourlyCount(day=hour.date(), hour=hour.hour, series=series, label=label, count=count)
        )
    unique = ["day", "hour", "series", "label"]
    HourlyCount.objects.bulk_create(
        rows, update_conflicts=True, unique_fields=unique, update_fields=["count"]
    )
