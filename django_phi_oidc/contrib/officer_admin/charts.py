"""The geometry of charts with stacked bars and a scale of round numbers, which a template draws. No
Django.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any

CHART_HEIGHT = 120
BAR_STEP = 20
BAR_GAP = 4
"""In units of the SVG view box. BAR_STEP: from one bar to the next."""
MIN_HEIGHT = 1
PART_GAP = 1
"""Of a part, so that the smallest number is visible; and between two parts of a bar."""
MAX_GRID_STEPS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartPart:
    """The numbers of one part of the bars, oldest first. None: unknown, because nothing was counted
    in that time.
    """

    label: Any
    """Translatable; shown if a chart has several parts."""
    counts: tuple[int | None, ...]

    @property
    def total(self) -> int:
        return sum(filter(None, self.counts))


@dataclass(frozen=True, slots=True)
class ChartRectangle:
    """What a part adds to a bar. number: of the part, from 1, for its color."""

    x: int
    y: float
    width: int
    height: float
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Bars of equal time, the oldest first."""

    starts: tuple[datetime, ...]
    parts: tuple[ChartPart, ...]
    bar_totals: tuple[int | None, ...]
    rectangles: tuple[ChartRectangle, ...]
    grid_values: tuple[int, ...]
    """The labels of the vertical axis, from its highest value down to 0, in equal steps."""

    @property
    def width(self) -> int:
        return BAR_STEP * len(self.starts)

    @property
    def grid_heights(self) -> list[float]:
        """The y of each grid value."""
        steps = len(self.grid_values) - 1
        heights = []
        for number in range(steps + 1):
            heights.append(CHART_HEIGHT * number / steps)
        return heights

    @property
    def total(self) -> int:
        return sum(filter(None, self.bar_totals))

    @property
    def is_counted(self) -> bool:
        return any(total is not None for total in self.bar_totals)

    @property
    def highest(self) -> tuple[datetime, int]:
        """The start and number of the first of the bars with the highest number."""
        bars = []
        for start, total in zip(self.starts, self.bar_totals, strict=True):
            bars.append((start, total or 0))
        return max(bars, key=itemgetter(1))

    @property
    def paths(self) -> list[tuple[int, str]]:
        """The rectangles of each part as one SVG path, with the number of the part."""
        shapes: dict[int, list[str]] = {}
        for bar in self.rectangles:
            shape = f"M{bar.x} {bar.y:g}h{bar.width}v{bar.height:g}h-{bar.width}z"
            shapes.setdefault(bar.number, []).append(shape)
        result = []
        for number, parts in sorted(shapes.items()):
            result.append((number, "".join(parts)))
        return result

    @property
    def grid_path(self) -> str:
        """The horizontal lines of the grid as an SVG path."""
        return "".join(f"M0 {y:g}h{self.width}" for y in self.grid_heights)

    @property
    def rows(self) -> list[tuple[datetime, list[int | None], int | None]]:
        """The numbers as a table: the start of each bar, its parts, and their sum."""
        columns = zip(*(part.counts for part in self.parts), strict=True)
        result = []
        for start, counts, total in zip(self.starts, columns, self.bar_totals, strict=True):
            result.append((start, list(counts), total))
        return result


def compute_grid(highest: int) -> tuple[int, ...]:
    """Return at most MAX_GRID_STEPS equal steps of round numbers from 0 that include highest, in
    descending order.
    """
    scale = 1
    while True:
        for step in (scale, 2 * scale, 5 * scale):
            if step * MAX_GRID_STEPS >= highest:
                grid = []
                for number in range(max(1, -(-highest // step)), -1, -1):
                    grid.append(step * number)
                return tuple(grid)
        scale *= 10


def build_chart(starts: Sequence[datetime], parts: Sequence[ChartPart]) -> Chart:
    """Return the chart of these parts, which have a number for each start. Requires: at least one
    of both.
    """
    columns = list(zip(*(part.counts for part in parts), strict=True))
    totals = [_add_known_counts(column) for column in columns]
    grid_values = compute_grid(max(total or 0 for total in totals))
    rectangles = []
    for place, column in enumerate(columns):
        y = float(CHART_HEIGHT)
        for number, count in enumerate(column, start=1):
            if count:
                height = max(MIN_HEIGHT, round(CHART_HEIGHT * count / grid_values[0], 2))
                y = round(y - height, 2)

                if height > 2 * (PART_GAP + MIN_HEIGHT) and len(column) > 1:
                    gap = PART_GAP
                else:
                    gap = 0

                x = place * BAR_STEP + BAR_GAP // 2
                rectangles.append(
                    ChartRectangle(x, y + gap, BAR_STEP - BAR_GAP, height - gap, number)
                )
    return Chart(
        starts=tuple(starts),
        parts=tuple(parts),
        bar_totals=tuple(totals),
        rectangles=tuple(rectangles),
        grid_values=grid_values,
    )


def _add_known_counts(counts: Sequence[int | None]) -> int | None:
    """Return the sum of the known counts, or None if all are unknown."""
    known = [count for count in counts if count is not None]
    if not known:
        return None
    return sum(known)
