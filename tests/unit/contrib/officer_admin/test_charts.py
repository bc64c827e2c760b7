"""The geometry of charts."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from django_phi_oidc.contrib.officer_admin.charts import (
    BAR_GAP,
    BAR_STEP,
    CHART_HEIGHT,
    MAX_GRID_STEPS,
    MIN_HEIGHT,
    PART_GAP,
    ChartPart,
    build_chart,
    compute_grid,
)

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
STARTS = [NOON + number * timedelta(hours=1) for number in range(4)]


def part(*counts: int | None) -> ChartPart:
    return ChartPart(label="part", counts=counts)


@pytest.mark.parametrize(
    ("highest", "grid"),
    [
        (0, (1, 0)),
        (1, (1, 0)),
        (4, (4, 3, 2, 1, 0)),
        (5, (6, 4, 2, 0)),
        (94, (100, 50, 0)),
        (400, (400, 300, 200, 100, 0)),
        (401, (600, 400, 200, 0)),
        (1_000_001, (1_500_000, 1_000_000, 500_000, 0)),
    ],
)
def test_scale_has_round_numbers_that_include_the_highest(highest: int, grid: tuple[int, ...]) -> None:
    assert compute_grid(highest) == grid
    assert len({before - after for before, after in pairwise(grid)}) == 1
    assert len(grid) <= MAX_GRID_STEPS + 1


def test_bars_stand_on_the_axis_in_proportion_to_the_scale() -> None:
    chart = build_chart(STARTS, [part(0, 1, 100, 50)])
    assert chart.grid_values == (100, 50, 0)
    assert chart.grid_heights == [0, CHART_HEIGHT / 2, CHART_HEIGHT]
    heights = {bar.x // BAR_STEP: bar.height for bar in chart.rectangles}
    assert heights == {1: CHART_HEIGHT / 100, 2: CHART_HEIGHT, 3: CHART_HEIGHT / 2}
    assert all(bar.y + bar.height == CHART_HEIGHT for bar in chart.rectangles)
    assert all(bar.x % BAR_STEP == BAR_GAP // 2 for bar in chart.rectangles)
    assert max(bar.x + bar.width for bar in chart.rectangles) == chart.width - BAR_GAP // 2
    assert (chart.total, chart.highest) == (151, (STARTS[2], 100))


def test_smallest_number_is_visible_and_none_has_no_bar() -> None:
    chart = build_chart(STARTS, [part(1, 100_000, None, 0)])
    assert [bar.height for bar in chart.rectangles] == [MIN_HEIGHT, CHART_HEIGHT]


def test_parts_are_stacked_with_a_gap() -> None:
    chart = build_chart(STARTS[:1], [part(50), part(30), part(0), part(20)])
    assert [bar.number for bar in chart.rectangles] == [1, 2, 4]
    lowest, middle, top = chart.rectangles
    assert lowest.y + lowest.height == CHART_HEIGHT
    assert middle.y + middle.height == lowest.y - PART_GAP
    assert top.y == PART_GAP
    assert top.y + top.height == middle.y - PART_GAP


def test_unknown_number_is_not_zero() -> None:
    chart = build_chart(STARTS, [part(None, 1, None, 2), part(None, None, 0, 3)])
    assert chart.bar_totals == (None, 1, 0, 5)
    assert chart.rows[0] == (STARTS[0], [None, None], None)
    assert chart.is_counted
    assert not build_chart(STARTS, [part(None, None, None, None)]).is_counted
