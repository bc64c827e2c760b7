"""The geometry of bar charts, which a template draws. No Django."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

CHART_HOURS = 24
HOUR = timedelta(hours=1)
CHART_WIDTH, CHART_HEIGHT, BAR_GAP = 480, 80, 4
"""In units of the SVG view box."""


@dataclass(frozen=True, slots=True)
class ChartBar:
    """The count of the hour that begins at since, and the position of its bar."""

    since: datetime
    count: int
    x: int
    y: int
    width: int
    height: int
    is_capped: bool
    """Counting stopped at the maximum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """The bars of some hours, the oldest first."""

    bars: tuple[ChartBar, ...]

    @property
    def is_capped(self) -> bool:
        return any(bar.is_capped for bar in self.bars)

    @property
    def total(self) -> int:
        return sum(bar.count for bar in self.bars)

    @property
    def highest(self) -> ChartBar:
        """The first of the hours with the highest count."""
        return max(self.bars, key=lambda bar: bar.count)


def get_hour_starts(now: datetime) -> list[datetime]:
    """Return the starts of the last hours, oldest first; the last hour is not over."""
    current = now.replace(minute=0, second=0, microsecond=0)
    return [current - number * HOUR for number in reversed(range(CHART_HOURS))]


def create_chart(hours: Sequence[datetime], counts: Sequence[int], *, max_count: int) -> Chart:
    """Return the chart of these counts per hour. max_count: where counting stopped.

    The highest bar has the height of the chart, and each hour with a count has a visible bar.
    """
    step, highest = CHART_WIDTH // len(hours), max(1, *counts)
    bars = []
    for number, (since, count) in enumerate(zip(hours, counts, strict=True)):
        height = max(2, round(CHART_HEIGHT * count / highest)) if count else 0
        x, y, width = number * step + BAR_GAP // 2, CHART_HEIGHT - height, step - BAR_GAP
        bars.append(ChartBar(since, count, x, y, width, height, is_capped=count >= max_count))
    return Chart(bars=tuple(bars))
