"""The charts of each period, and the comparison of yesterday."""

from datetime import date, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_phi_oidc.contrib.officer_admin.hourly_counts import Series
from django_phi_oidc.contrib.officer_admin.models import HourlyCount
from django_phi_oidc.contrib.officer_admin.trends import (
    MAX_REASONS,
    PERIODS,
    DayComparison,
    TrendChart,
    Verdict,
    compare_yesterday,
    list_trend_charts,
)
from tests.support.dashboard_fixtures import HOUR, NOW, fill_month

pytestmark = pytest.mark.django_db
START = NOW.replace(minute=0)


def add(series: Series, count: int, *, hours_ago: int = 0, label: str = "") -> None:
    hour = START - hours_ago * HOUR
    HourlyCount.objects.create(day=hour.date(), hour=hour.hour, series=series, label=label, count=count)


def chart(series: Series, period: str = "24h") -> TrendChart:
    charts = list_trend_charts(PERIODS[period], can_view=lambda model: True, now=NOW)
    (found,) = [item for item in charts if item.trend.series is series]
    return found


@pytest.mark.parametrize(
    ("period", "first", "bars", "labels"),
    [
        ("24h", START - 23 * HOUR, 24, ["17:00", "23:00", "05:00", "11:00"]),
        ("7d", NOW.replace(day=18, hour=0, minute=0), 28, ["Wed", "Thu", "Fri", "Sat", "Sun", "Mon", "Tue"]),
        (
            "30d",
            NOW.replace(month=10, day=26, hour=0, minute=0),
            30,
            ["26 Oct", "31 Oct", "5 Nov", "10 Nov", "15 Nov", "20 Nov"],
        ),
    ],
)
def test_period_has_bars_of_equal_time_up_to_now(period: str, first: object, bars: int, labels: list[str]) -> None:
    found = chart(Series.SIGN_INS, period)
    assert (found.chart.starts[0], len(found.chart.starts)) == (first, bars)
    assert found.axis_labels == labels
    assert len(found.label_path.split("M")) == len(labels) + 1
    end = found.chart.starts[-1] + PERIODS[period].bar_hours * HOUR
    assert NOW < end <= NOW.replace(day=25, hour=0, minute=0)


def test_events_are_added_and_measurements_are_not() -> None:
    for series in (Series.SIGN_INS, Series.LIVE_SESSIONS):
        add(series, 3, hours_ago=15)
        add(series, 4, hours_ago=16)
    assert chart(Series.SIGN_INS, "30d").chart.bar_totals[-1] == 7
    assert chart(Series.SIGN_INS, "7d").chart.bar_totals[-4:] == (7, None, None, None)
    assert chart(Series.LIVE_SESSIONS, "30d").chart.bar_totals[-1] == 4
    assert chart(Series.SIGN_INS).chart.bar_totals[7:9] == (4, 3)


def test_hours_outside_the_period_are_not_in_the_chart() -> None:
    add(Series.SIGN_INS, 5, hours_ago=24)
    add(Series.SIGN_INS, 1, hours_ago=23)
    # Of a clock that was ahead.
    add(Series.SIGN_INS, 7, hours_ago=-30)
    assert chart(Series.SIGN_INS).chart.total == 1
    assert chart(Series.SIGN_INS, "7d").chart.total == 6


def test_refusals_have_the_most_frequent_reasons_and_the_others() -> None:
    add(Series.REFUSALS, 0)
    add(Series.REFUSALS, 2, hours_ago=1)
    for number in range(MAX_REASONS + 2):
        add(Series.REFUSALS, 10 * (number + 1), label=f"reason_{number}")
    found = chart(Series.REFUSALS).chart
    assert [str(part.label) for part in found.parts] == [
        *(f"reason_{number}" for number in (5, 4, 3, 2)),
        "other reasons",
    ]
    assert [part.counts[-1] for part in found.parts] == [60, 50, 40, 30, 30]
    assert [part.counts[-2] for part in found.parts] == [0, 0, 0, 0, 2]
    assert [part.counts[-3] for part in found.parts] == [None] * 5


def test_claims_have_a_part_for_each_age() -> None:
    add(Series.CLAIMS, 4, label="day")
    add(Series.CLAIMS, 6, label="older")
    found = chart(Series.CLAIMS).chart
    assert [part.counts[-1] for part in found.parts] == [4, None, None, None, 6]
    assert found.bar_totals[-1] == 10


@pytest.mark.parametrize(
    ("viewed", "query_count"), [("phi_oidc_audit.auditevent", 1), ("django_phi_oidc.oidcsession", 1), ("auth.user", 0)]
)
def test_only_permitted_series_are_read_by_one_query(viewed: str, query_count: int) -> None:
    fill_month()
    with CaptureQueriesContext(connection) as queries:
        charts = list_trend_charts(PERIODS["30d"], can_view=lambda model: model == viewed, now=NOW)
    assert len(queries) == query_count
    assert {item.trend.model_label for item in charts} == ({viewed} if query_count else set())


def compare(count: int, *compared: int) -> DayComparison:
    return DayComparison(series=Series.REFUSALS, day=date(2026, 11, 28), count=count, compared=compared)


@pytest.mark.parametrize(
    ("count", "compared", "verdict"),
    [
        (412, (30, 45, 38, 31), Verdict.MORE),
        (68, (30, 45, 38, 31), Verdict.MORE),
        (67, (30, 45, 38, 31), Verdict.USUAL),
        (9, (0, 0, 0, 0), Verdict.USUAL),
        (10, (0, 0, 0, 0), Verdict.MORE),
        (300, (300, 310), Verdict.USUAL),
        (199, (300, 310), Verdict.LESS),
        (200, (300, 310), Verdict.USUAL),
        (0, (9, 9), Verdict.USUAL),
        (0, (10, 12), Verdict.LESS),
        (412, (30,), Verdict.UNKNOWN),
        (412, (), Verdict.UNKNOWN),
    ],
)
def test_day_is_unusual_beyond_the_range_of_the_earlier_days(
    count: int, compared: tuple[int, ...], verdict: Verdict
) -> None:
    comparison = compare(count, *compared)
    assert comparison.verdict is verdict
    assert comparison.is_unusual == (verdict in {Verdict.MORE, Verdict.LESS})


def test_comparison_is_a_sentence() -> None:
    assert compare(412, 30, 45, 38, 31).sentence == (
        "Refusals yesterday (Saturday): 412. On the same weekday of the last 4 weeks: 30 to 45. Unusually many."
    )
    assert compare(412).sentence == (
        "Refusals yesterday (Saturday): 412. Two earlier weeks are needed for a comparison."
    )


def test_yesterday_is_compared_with_the_same_weekday() -> None:
    fill_month()
    sign_ins, refusals = compare_yesterday(now=NOW)
    assert (sign_ins.day, len(sign_ins.compared), len(refusals.compared)) == (date(2026, 11, 23), 4, 4)
    assert (sign_ins.verdict, refusals.verdict) == (Verdict.USUAL, Verdict.MORE)
    days = [NOW.date() - timedelta(days=1 + 7 * number) for number in range(1, 5)]
    stored = HourlyCount.objects.filter(series=Series.REFUSALS)
    assert refusals.compared == tuple(sum(stored.filter(day=day).values_list("count", flat=True)) for day in days)


def test_day_that_was_not_counted_completely_is_not_compared() -> None:
    fill_month()
    week_ago = NOW.date() - timedelta(days=8)
    HourlyCount.objects.filter(day=week_ago, hour=3).delete()
    assert [len(comparison.compared) for comparison in compare_yesterday(now=NOW)] == [3, 3]
    HourlyCount.objects.filter(day=NOW.date() - timedelta(days=1), hour=3).delete()
    assert compare_yesterday(now=NOW) == []
