"""The geometry of charts."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from django_phi_oidc.officer_admin.charts import (
    BAR_GAP,
    CHART_HEIGHT,
    CHART_HOURS,
    CHART_WIDTH,
    HOUR,
    create_chart,
    get_hour_starts,
)

NOW = datetime(2026, 11, 24, 0, 59, 59, 999999, tzinfo=UTC)


def test_hours_end_with_the_current_one_and_cross_midnight() -> None:
    hours = get_hour_starts(NOW)
    assert (len(hours), hours[-1], hours[0]) == (
        CHART_HOURS,
        datetime(2026, 11, 24, tzinfo=UTC),
        NOW.replace(day=23, hour=1, minute=0, second=0, microsecond=0),
    )
    assert {after - before for before, after in pairwise(hours)} == {HOUR}


def test_bars_fit_the_chart_and_the_highest_fills_it() -> None:
    chart = create_chart(get_hour_starts(NOW), [0, 1, 1000, 500, *[3] * 20], max_count=2000)
    assert [bar.height for bar in chart.bars][:4] == [0, 2, CHART_HEIGHT, CHART_HEIGHT // 2]
    assert all(bar.y + bar.height == CHART_HEIGHT for bar in chart.bars)
    assert all(after.x - before.x == before.width + BAR_GAP for before, after in pairwise(chart.bars))
    assert (chart.bars[0].x, chart.bars[-1].x + chart.bars[-1].width) == (BAR_GAP // 2, CHART_WIDTH - BAR_GAP // 2)
    assert (chart.total, chart.highest.count, chart.highest.since) == (1561, 1000, chart.bars[2].since)


@pytest.mark.parametrize(("count", "is_capped"), [(1999, False), (2000, True)])
def test_chart_marks_capped_counts(count: int, is_capped: bool) -> None:
    chart = create_chart(get_hour_starts(NOW), [count, *[0] * 23], max_count=2000)
    assert (chart.is_capped, chart.bars[0].is_capped, chart.bars[1].is_capped) == (is_capped, is_capped, False)


def test_chart_without_events_has_no_bar() -> None:
    chart = create_chart(get_hour_starts(NOW), [0] * 24, max_count=2000)
    assert (chart.total, {bar.height for bar in chart.bars}) == (0, {0})
