"""Where the bars of a chart stand."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from django_phi_oidc.desk.drawing import GAP, HEIGHT, HOUR, HOURS, WIDTH, draw, last_hours

NOW = datetime(2026, 11, 24, 0, 59, 59, 999999, tzinfo=UTC)


def test_last_hours_end_with_the_one_that_is_not_over_and_cross_midnight() -> None:
    hours = last_hours(NOW)
    assert (len(hours), hours[-1], hours[0]) == (
        HOURS,
        datetime(2026, 11, 24, tzinfo=UTC),
        NOW.replace(day=23, hour=1, minute=0, second=0, microsecond=0),
    )
    assert {after - before for before, after in pairwise(hours)} == {HOUR}


def test_bars_stand_side_by_side_within_the_chart_and_the_highest_fills_it() -> None:
    chart = draw(last_hours(NOW), [0, 1, 1000, 500, *[3] * 20], most=2000)
    assert [bar.height for bar in chart.bars][:4] == [0, 2, HEIGHT, HEIGHT // 2]
    assert all(bar.y + bar.height == HEIGHT for bar in chart.bars)
    assert all(after.x - before.x == before.width + GAP for before, after in pairwise(chart.bars))
    assert (chart.bars[0].x, chart.bars[-1].x + chart.bars[-1].width) == (GAP // 2, WIDTH - GAP // 2)
    assert (chart.total, chart.highest.count, chart.highest.since) == (1561, 1000, chart.bars[2].since)


@pytest.mark.parametrize(("count", "is_cut"), [(1999, False), (2000, True)])
def test_chart_says_where_no_more_was_counted(count: int, is_cut: bool) -> None:
    chart = draw(last_hours(NOW), [count, *[0] * 23], most=2000)
    assert (chart.is_cut, chart.bars[0].is_cut, chart.bars[1].is_cut) == (is_cut, is_cut, False)


def test_chart_of_nothing_has_no_bar() -> None:
    chart = draw(last_hours(NOW), [0] * 24, most=2000)
    assert (chart.total, {bar.height for bar in chart.bars}) == (0, {0})
