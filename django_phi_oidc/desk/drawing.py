"""Where the bars of a chart stand. What draws them is a template; no Django."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

HOURS = 24
HOUR = timedelta(hours=1)
WIDTH, HEIGHT, GAP = 480, 80, 4
"""Of a chart, and between two bars, in its own units."""


@dataclass(frozen=True, slots=True)
class Bar:
    """What was counted in the hour that begins at since, and its place in the chart."""

    since: datetime
    count: int
    x: int
    y: int
    width: int
    height: int
    is_cut: bool
    """No more was counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """The bars of some hours, the oldest first."""

    bars: tuple[Bar, ...]

    @property
    def is_cut(self) -> bool:
        """Whether the total is more than was counted."""
        return any(bar.is_cut for bar in self.bars)

    @property
    def total(self) -> int:
        """How much was counted in all hours."""
        return sum(bar.count for bar in self.bars)

    @property
    def highest(self) -> Bar:
        """The hour with the most, the first of these."""
        return max(self.bars, key=lambda bar: bar.count)


def last_hours(now: datetime) -> list[datetime]:
    """Return when the last hours began, the oldest first; the last one is not over."""
    current = now.replace(minute=0, second=0, microsecond=0)
    return [current - number * HOUR for number in reversed(range(HOURS))]


def draw(hours: Sequence[datetime], counts: Sequence[int], *, most: int) -> Chart:
    """Return the chart of what was counted in each of these hours, and no further than most.

    The highest bar is as high as the chart, and none is too low to be seen unless nothing was counted.
    """
    step, highest = WIDTH // len(hours), max(1, *counts)
    bars = []
    for place, (since, count) in enumerate(zip(hours, counts, strict=True)):
        height = max(2, round(HEIGHT * count / highest)) if count else 0
        bars.append(Bar(since, count, place * step + GAP // 2, HEIGHT - height, step - GAP, height, count >= most))
    return Chart(bars=tuple(bars))
