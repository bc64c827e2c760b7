"""The hourly counts agree with the audit log, however often and late they are made."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from django_phi_oidc import schedule
from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.router import AUDIT_ALIAS
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.contrib.officer_admin import hourly_counts
from django_phi_oidc.contrib.officer_admin.hourly_counts import (
    KEPT_DAYS,
    LATE_HOURS,
    Series,
    update_counts,
)
from django_phi_oidc.contrib.officer_admin.models import HourlyCount
from django_phi_oidc.contrib.officer_admin.tasks import update_overview
from django_phi_oidc.errors import AuditUnavailable
from tests.support.audit_log import events, sealed
from tests.support.audit_tampering import EVENT, is_postgresql, sql
from tests.support.dashboard_fixtures import HOUR, NOW, fill
from tests.support.manual_blocks import block
from tests.unit.audit.test_search import plan, statements, whole_tables

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
START = NOW.replace(minute=0)


def sign_in(at: datetime, count: int = 1) -> None:
    events(count, action=Action.LOGIN_SUCCEEDED, detail={}, at=at)


def refuse(at: datetime, reason: str, count: int = 1, outcome: str = "failure") -> None:
    events(count, action=Action.LOGIN_REFUSED, outcome=outcome, reason=reason, detail={}, at=at)


def stored(series: Series) -> dict[tuple[datetime, str], int]:
    """Return the numbers of the series that are not 0."""
    return {
        (datetime(row.day.year, row.day.month, row.day.day, row.hour, tzinfo=UTC), row.label): row.count
        for row in HourlyCount.objects.filter(series=series, count__gt=0)
    }


def test_events_are_counted_in_their_hour_by_reason() -> None:
    sign_in(START - timedelta(milliseconds=2), 2)
    sign_in(START)
    refuse(START, "state_unknown", 3)
    refuse(START, "permission_missing")
    refuse(START, "internal", outcome="error")
    refuse(START - 26 * HOUR, "state_unknown")
    update_counts(now=NOW)
    assert stored(Series.SIGN_INS) == {(START - HOUR, ""): 2, (START, ""): 1}
    assert stored(Series.REFUSALS) == {
        (START, "state_unknown"): 3,
        (START, "permission_missing"): 1,
        (START - 26 * HOUR, "state_unknown"): 1,
    }


ENDS: dict[str, tuple[str, timedelta, int]] = {
    "the audit log was away": ("audit_unavailable", timedelta(seconds=5), 2),
    "the provider ended it during the sign-in": ("backchannel_logout", timedelta(seconds=5), 2),
    "the account was deactivated during the sign-in": ("user_inactive", timedelta(seconds=5), 2),
    "a security event ended it during the sign-in": ("security_event", timedelta(seconds=5), 2),
    "the provider ended it later": ("backchannel_logout", timedelta(minutes=2), 3),
    "the user signed out": ("logout", timedelta(seconds=5), 3),
}


@pytest.mark.parametrize(("reason", "after", "expected"), ENDS.values(), ids=ENDS)
def test_sign_in_that_was_refused_after_its_event_is_not_counted(reason: str, after: timedelta, expected: int) -> None:
    at = START - timedelta(seconds=1)
    sign_in(at, 2)
    origin = Origin(actor="7", session="refused")
    events(1, action=Action.LOGIN_SUCCEEDED, detail={}, at=at, origin=origin)
    events(1, action=Action.SESSION_ENDED, reason=reason, detail={}, at=at + after, origin=origin)
    update_counts(now=NOW)
    assert stored(Series.SIGN_INS) == {(START - HOUR, ""): expected}


def test_counts_of_a_time_use_an_index() -> None:
    for number in range(40):
        origin = Origin(actor=str(number), session=f"session {number}")
        action = list(Action)[number % 19]
        events(100, at=START + timedelta(minutes=number), origin=origin, action=action, detail=None)
    since, until = START + timedelta(minutes=19), START + timedelta(minutes=38)
    refuse(since, "permission_missing", 3)
    sql(f"ANALYZE {EVENT}" if not is_postgresql() else f"VACUUM ANALYZE {EVENT}")
    with statements() as collected:
        assert hourly_counts.count_sign_ins(since, until) == 100
        assert hourly_counts.count_failures_by_reason(since, until) == {"permission_missing": 3}
    sign_ins, refused, failures = (plan(*statement) for statement in collected)
    only = "Index Only Scan using" if is_postgresql() else "USING COVERING INDEX"
    assert f"{only} phi_oidc_audit_action" in sign_ins, sign_ins
    assert whole_tables(refused) == [], refused
    assert "phi_oidc_audit_outcome" in failures, failures
    assert hourly_counts.count_sign_ins(until + HOUR, until + 2 * HOUR) == 0


def test_counting_again_changes_nothing_and_adds_what_is_new() -> None:
    sign_in(START, 2)
    for _ in range(2):
        update_counts(now=NOW)
        assert stored(Series.SIGN_INS) == {(START, ""): 2}
    sign_in(START)
    update_counts(now=NOW)
    assert stored(Series.SIGN_INS) == {(START, ""): 3}


def test_late_event_is_counted_in_the_next_hour() -> None:
    sign_in(START - LATE_HOURS * HOUR)
    update_counts(now=NOW)
    # The event waited in the outbox.
    sign_in(START - 40 * HOUR)
    update_counts(now=NOW)
    assert (START - 40 * HOUR, "") not in stored(Series.SIGN_INS)
    update_counts(now=NOW + HOUR)
    assert stored(Series.SIGN_INS)[START - 40 * HOUR, ""] == 1


def test_deleted_counts_are_made_again_from_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    # All hours in one run, on a busy machine, too.
    monkeypatch.setattr(hourly_counts, "RUN_SECONDS", 600.0)
    sign_in(START - 20 * 24 * HOUR, 2)
    sign_in(START - HOUR)
    update_counts(now=NOW)
    before = stored(Series.SIGN_INS)
    assert len(before) == 2
    exec(block("dashboard", "recount"), {"HourlyCount": HourlyCount})
    others = {*Series, "alerts"} - {Series.SIGN_INS, Series.REFUSALS}
    assert {row.series for row in HourlyCount.objects.all()} == others
    update_counts(now=NOW)
    assert stored(Series.SIGN_INS) == before


def test_hours_before_the_first_event_and_old_ones_are_not_counted() -> None:
    sign_in(START - 3 * HOUR)
    HourlyCount.objects.create(day=START.date() - timedelta(days=KEPT_DAYS + 1), hour=3, series="sign_ins", count=9)
    HourlyCount.objects.create(day=START.date() - timedelta(days=KEPT_DAYS), hour=3, series="alerts", count=7)
    update_counts(now=NOW)
    counted = HourlyCount.objects.filter(series=Series.SIGN_INS)
    assert sorted(counted.values_list("hour", flat=True)) == [13, 14, 15, 16]
    assert stored("alerts") == {(START - KEPT_DAYS * 24 * HOUR - 13 * HOUR, ""): 7}


def test_clock_that_was_ahead_leaves_no_wrong_number() -> None:
    sign_in(START)
    update_counts(now=NOW + 5 * HOUR)
    assert stored(Series.SIGN_INS) == {(START, ""): 1}
    sign_in(START)
    update_counts(now=NOW)
    assert stored(Series.SIGN_INS) == {(START, ""): 2}


def test_interrupted_run_is_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    sign_in(START - 9 * HOUR)
    monkeypatch.setattr(hourly_counts, "RUN_SECONDS", 0.0)
    update_counts(now=NOW)
    assert stored(Series.SIGN_INS) == {}
    monkeypatch.undo()
    update_counts(now=NOW)
    assert stored(Series.SIGN_INS) == {(START - 9 * HOUR, ""): 1}


def test_rows_are_measured_once_an_hour() -> None:
    fill()
    hour = START
    measured = {series: stored(series) for series in (Series.LIVE_SESSIONS, Series.REVOCATIONS, "alerts")}
    assert measured == {
        Series.LIVE_SESSIONS: {(hour, ""): 2},
        Series.REVOCATIONS: {(hour, ""): 3},
        "alerts": {(hour, ""): 1},
    }
    assert stored(Series.UNSEALED) == {(hour, ""): 3}
    sealed(1, at=NOW)
    update_counts(now=NOW)
    assert stored(Series.UNSEALED) == {(hour, ""): 3}
    update_counts(now=NOW + HOUR)
    assert stored(Series.UNSEALED) == {(hour, ""): 3}
    assert HourlyCount.objects.filter(series=Series.UNSEALED, hour=hour.hour + 1, count=0).exists()


def test_claims_are_measured_by_age() -> None:
    fill()
    HourlyCount.objects.all().delete()
    claims = list(StoredClaim.objects.order_by("pk"))
    days = [0.5, 3, 10, 60, 400]
    for claim, age in zip(claims, days, strict=True):
        StoredClaim.objects.filter(pk=claim.pk).update(obtained_at=NOW - timedelta(days=age))
    update_counts(now=NOW)
    assert stored(Series.CLAIMS) == {(START, group): 1 for group in ("day", "week", "month", "quarter", "older")}


def test_number_of_queries_of_a_usual_run_is_constant() -> None:
    fill()
    counts = []
    for _ in range(2):
        with (
            CaptureQueriesContext(connections["default"]) as default_queries,
            CaptureQueriesContext(connections[AUDIT_ALIAS]) as audit_queries,
        ):
            update_counts(now=NOW)
        counts.append((len(default_queries), len(audit_queries)))
        sign_in(START, 50)
    # The oldest event, and the sign-ins, those of them that were refused, and the refusals of two hours.
    assert counts[0] == counts[1]
    assert counts[0][1] == 7


def test_outage_of_the_audit_database_stops_only_the_counting(
    audit_database_away: Callable[[], Any],
) -> None:
    fill()
    HourlyCount.objects.all().delete()
    with clock.override_clock(lambda: NOW), audit_database_away():
        with pytest.raises(AuditUnavailable):
            update_counts(now=NOW)
        update_overview()
    assert stored(Series.LIVE_SESSIONS) == {(START, ""): 2}
    assert stored(Series.SIGN_INS) == {}
    with clock.override_clock(lambda: NOW):
        update_overview()
    assert stored(Series.SIGN_INS) == {(START - 2 * HOUR, ""): 3}


def test_task_is_scheduled_once_a_minute() -> None:
    assert schedule.beat_schedule()["phi_oidc.update_overview"]["schedule"] == 60
