"""Where the bars of a chart stand. What draws them is a template; no Django."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

CHART_HOURS = 24
HOUR = timedelta(hours=1)
CHART_WIDTH, CHART_HEIGHT, BAR_GAP = 480, 80, 4
"""Of a chart, and between two bars, in its own units."""


@dataclass(frozen=True, slots=True)
class ChartBar:
    """What was counted in the hour that begins at since, and its place in the chart."""

    since: datetime
    count: int
    x: int
    y: int
    width: int
    height: int
    is_capped: bool
    """No more was counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """The bars of some hours, the oldest first."""

    bars: tuple[ChartBar, ...]

    @property
    def is_capped(self) -> bool:
        """Whether the total is more than was counted."""
        return any(bar.is_capped for bar in self.bars)

    @property
    def total(self) -> int:
        """How much was counted in all hours."""
        return sum(bar.count for bar in self.bars)

    @property
    def highest(self) -> ChartBar:
        """The hour with the most, the first of these."""
        return max(self.bars, key=lambda bar: bar.count)


def get_hour_starts(now: datetime) -> list[datetime]:
    """Return when the last hours began, the oldest first; the last one is not over."""
    current = now.replace(minute=0, second=0, microsecond=0)
    return [current - number * HOUR for number in reversed(range(CHART_HOURS))]


def create_chart(hours: Sequence[datetime], counts: Sequence[int], *, max_count: int) -> Chart:
    """Return the chart of what was counted in each of these hours, and no further than most.

    The highest bar is as high as the chart, and none is too low to be seen unless nothing was counted.
    """
    step, highest = CHART_WIDTH // len(hours), max(1, *counts)
    bars = []
    for place, (since, count) in enumerate(zip(hours, counts, strict=True)):
        height = max(2, round(CHART_HEIGHT * count / highest)) if count else 0
        bars.append(
            ChartBar(
                since,
                count,
                place * step + BAR_GAP // 2,
                CHART_HEIGHT - height,
                step - BAR_GAP,
                height,
                count >= max_count,
            )
        )
    return Chart(bars=tuple(bars))
