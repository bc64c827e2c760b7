"""The charts of the overview, and the comparison of yesterday with earlier days, from the hourly
counts.

Days and hours are in UTC. A chart is built for users who may view the rows that it counts.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from operator import attrgetter
from typing import Any

from django.db.models import Count, ExpressionWrapper, F, IntegerField, Max, Q, Sum
from django.utils.formats import date_format
from django.utils.html import format_html_join
from django.utils.translation import gettext_lazy as _

from ...audit.descriptions import get_reason_label
from ...audit.events import Action
from ...sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from ..common.overview_parts import Trend, overview_trends
from .charts import CHART_HEIGHT, Chart, ChartPart, build_chart
from .hourly_counts import AGE_GROUPS, DAY, HOUR, OLDER, Series
from .models import HourlyCount

MAX_REASONS = 4
"""Reasons with a part of their own; all other refusals are one part."""
COMPARED_WEEKS = 4
MIN_COMPARED_DAYS = 2
UNUSUAL_RATIO = 1.5
UNUSUAL_DIFFERENCE = 10
"""A day is unusual if its number is above the highest of the compared days by this factor, or below
the lowest, and differs from it by at least so many.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """The time that the charts show."""

    label: Any
    tile_note: Any
    peak_label: Any
    """With the placeholder count. All translatable."""
    bar_hours: int
    bar_count: int
    bars_per_label: int
    label_format: str
    """As of Django's date filter, for the labels of the horizontal axis."""

    def list_starts(self, now: datetime) -> list[datetime]:
        """Return the starts of the bars, oldest first; the last one is not over, unless the day has
        later bars.
        """
        hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        first = hour - (self.bar_count - 1) * HOUR
        if self.bar_hours > 1:
            days = self.bar_count * self.bar_hours // 24
            first = hour.replace(hour=0) - (days - 1) * DAY
        starts = []
        for number in range(self.bar_count):
            starts.append(first + number * self.bar_hours * HOUR)
        return starts


PERIODS: Mapping[str, Period] = {
    "24h": Period(
        label=_("24 hours"),
        tile_note=_("in 24 hours"),
        peak_label=_("peak: %(count)d in one hour"),
        bar_hours=1,
        bar_count=24,
        bars_per_label=6,
        label_format="H:i",
    ),
    "7d": Period(
        label=_("7 days"),
        tile_note=_("in 7 days"),
        peak_label=_("peak: %(count)d in six hours"),
        bar_hours=6,
        bar_count=28,
        bars_per_label=4,
        label_format="D",
    ),
    "30d": Period(
        label=_("30 days"),
        tile_note=_("in 30 days"),
        peak_label=_("peak: %(count)d in one day"),
        bar_hours=24,
        bar_count=30,
        bars_per_label=5,
        label_format="j M",
    ),
}
DEFAULT_PERIOD = "24h"
_AGE_LABELS = {
    "day": _("less than a day"),
    "week": _("1 to 7 days"),
    "month": _("7 to 30 days"),
    "quarter": _("30 to 90 days"),
    OLDER: _("more than 90 days"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendChart:
    """A chart with the texts around it."""

    trend: Trend
    chart: Chart
    period: Period
    url_query: str

    @property
    def peak_text(self) -> str:
        return str(self.period.peak_label) % {"count": self.chart.highest[1]}

    @property
    def axis_labels(self) -> list[str]:
        """Labels at equal distances, the first one at the start of the first bar."""
        starts = self.chart.starts[:: self.period.bars_per_label]
        return [date_format(start, self.period.label_format) for start in starts]

    @property
    def label_path(self) -> str:
        """The vertical lines of the grid at these labels as an SVG path."""
        distance = self.chart.width * self.period.bars_per_label // len(self.chart.starts)
        return "".join(f"M{x} 0v{CHART_HEIGHT}" for x in range(0, self.chart.width, distance))

    @property
    def table_rows(self) -> str:
        """The rows of the table. Not in the template, which would take half of the time of the page
        for them.
        """
        has_total = len(self.chart.parts) > 1
        rows = []
        for start, counts, total in self.chart.rows:
            if has_total:
                counts.append(total)
            rows.append((f"{start:%Y-%m-%d %H:%M}", _build_cells(counts)))
        return format_html_join("\n", '<tr><th scope="row">{}</th>{}</tr>', rows)


def list_trend_charts(
    period: Period, *, can_view: Callable[[str], bool], now: datetime
) -> list[TrendChart]:
    """Return the charts of the series whose rows may be viewed, by one SELECT or none."""
    ordered = sorted(overview_trends, key=attrgetter("position"))
    trends = []
    for trend in ordered:
        if can_view(trend.model_label):
            trends.append(trend)
    if not trends:
        return []
    starts = period.list_starts(now)
    numbers = _load_numbers(trends, period, starts)
    trend_charts = []
    for trend in trends:
        trend_charts.append(
            TrendChart(
                trend=trend,
                chart=build_chart(starts, _build_parts(trend, numbers[trend.series], len(starts))),
                period=period,
                url_query=trend.build_url_query(starts[0]),
            )
        )
    return trend_charts


def _build_cells(counts: Sequence[int | None]) -> str:
    texts = []
    for count in counts:
        if count is None:
            texts.append(("–",))
        else:
            texts.append((str(count),))
    return format_html_join("", "<td>{}</td>", texts)


_Numbers = Mapping[str, Mapping[int, int]]
"""By label, and by the place of the bar."""


def _load_numbers(
    trends: Sequence[Trend], period: Period, starts: Sequence[datetime]
) -> Mapping[str, _Numbers]:
    first = starts[0]
    in_period = Q(day__gt=first.date()) | Q(day=first.date(), hour__gte=first.hour)
    slot = ExpressionWrapper(F("hour") / period.bar_hours, output_field=IntegerField())
    rows = (
        HourlyCount.objects.filter(
            in_period, day__gte=first.date(), series__in=[trend.series for trend in trends]
        )
        .values_list("series", "label", "day", slot)
        .annotate(total=Sum("count"), highest=Max("count"))
        .order_by()
    )
    added = set()
    for trend in trends:
        if trend.is_of_events:
            added.add(trend.series)
    numbers: dict[str, dict[str, dict[int, int]]] = {}
    for trend in trends:
        numbers[trend.series] = defaultdict(dict)
    for name, label, day, bar, total, highest in rows:
        since = datetime(day.year, day.month, day.day, bar * period.bar_hours, tzinfo=UTC)
        place = (since - first) // timedelta(hours=period.bar_hours)
        if place < len(starts):
            if name in added:
                numbers[name][label][place] = total
            else:
                numbers[name][label][place] = highest
    return numbers


def _build_parts(trend: Trend, numbers: _Numbers, bar_count: int) -> list[ChartPart]:
    """Return the parts of the bars: one, unless the series has labels."""
    if trend.series == Series.CLAIMS:
        return _build_age_parts(numbers, bar_count)
    if trend.series == Series.REFUSALS:
        return _build_reason_parts(numbers, bar_count)
    return [ChartPart(label=trend.title, counts=_fill(numbers.get("", {}), bar_count))]


def _build_age_parts(numbers: _Numbers, bar_count: int) -> list[ChartPart]:
    parts = []
    for name in [*AGE_GROUPS, OLDER]:
        counts = _fill(numbers.get(name, {}), bar_count)
        parts.append(ChartPart(label=_AGE_LABELS[name], counts=counts))
    return parts


def _build_reason_parts(numbers: _Numbers, bar_count: int) -> list[ChartPart]:
    """Return the parts of the most frequent reasons, and one of all other refusals."""
    reasons = [name for name in numbers if name]
    by_number = sorted(reasons, key=lambda name: (-sum(numbers[name].values()), name))
    shown = by_number[:MAX_REASONS]
    others = ["", *by_number[MAX_REASONS:]]
    # Each counted hour has a row without a reason. An hour without a row for a reason has no such
    # refusal.
    counted = numbers.get("", {})
    rest = {}
    for bar in counted:
        rest[bar] = sum(numbers.get(name, {}).get(bar, 0) for name in others)
    parts = []
    for name in shown:
        of_reason = {}
        for bar in counted:
            of_reason[bar] = numbers[name].get(bar, 0)
        parts.append(ChartPart(label=get_reason_label(name), counts=_fill(of_reason, bar_count)))
    return [*parts, ChartPart(label=_("other reasons"), counts=_fill(rest, bar_count))]


def _fill(numbers: Mapping[int, int], bar_count: int) -> tuple[int | None, ...]:
    return tuple(numbers.get(place) for place in range(bar_count))


class Verdict(StrEnum):
    """How a day compares with the earlier ones."""

    MORE = "more"
    LESS = "less"
    USUAL = "usual"
    UNKNOWN = "unknown"
    """There are not enough earlier days."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DayComparison:
    """The number of yesterday, and the range of the same weekday in the weeks before."""

    series: Series
    day: date
    count: int
    compared: tuple[int, ...]
    """The numbers of the earlier days that were counted completely."""

    @property
    def verdict(self) -> Verdict:
        if len(self.compared) < MIN_COMPARED_DAYS:
            return Verdict.UNKNOWN
        lowest = min(self.compared)
        highest = max(self.compared)
        if self.count >= highest + UNUSUAL_DIFFERENCE and self.count > highest * UNUSUAL_RATIO:
            return Verdict.MORE
        if self.count <= lowest - UNUSUAL_DIFFERENCE and self.count < lowest / UNUSUAL_RATIO:
            return Verdict.LESS
        return Verdict.USUAL

    @property
    def is_unusual(self) -> bool:
        return self.verdict in (Verdict.MORE, Verdict.LESS)

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        count = _COUNT_SENTENCES[self.series] % {
            "day": date_format(self.day, "l"),
            "count": self.count,
        }
        if self.verdict is Verdict.UNKNOWN:
            return f"{count} {_VERDICT_SENTENCES[self.verdict]}"
        numbers = {
            "weeks": len(self.compared),
            "lowest": min(self.compared),
            "highest": max(self.compared),
        }
        return f"{count} {_RANGE_SENTENCE % numbers} {_VERDICT_SENTENCES[self.verdict]}"


_COUNT_SENTENCES = {
    Series.SIGN_INS: _("Sign-ins yesterday (%(day)s): %(count)d."),
    Series.REFUSALS: _("Refusals yesterday (%(day)s): %(count)d."),
}
_RANGE_SENTENCE = _("On the same weekday of the last %(weeks)d weeks: %(lowest)d to %(highest)d.")
_VERDICT_SENTENCES = {
    Verdict.MORE: _("Unusually many."),
    Verdict.LESS: _("Unusually few."),
    Verdict.USUAL: _("Not unusual."),
    Verdict.UNKNOWN: _("Two earlier weeks are needed for a comparison."),
}


def compare_yesterday(*, now: datetime) -> list[DayComparison]:
    """Return the comparisons of sign-ins and refusals, by one SELECT; none if yesterday was not
    counted completely.
    """
    yesterday = now.astimezone(UTC).date() - DAY
    days = []
    for number in range(COMPARED_WEEKS + 1):
        days.append(yesterday - number * timedelta(weeks=1))
    rows = (
        HourlyCount.objects.filter(series__in=(Series.SIGN_INS, Series.REFUSALS), day__in=days)
        .values_list("series", "day")
        .annotate(total=Sum("count"), hours=Count("hour", distinct=True))
        .order_by()
    )
    totals = {}
    for name, day, total, hours in rows:
        if hours == 24:
            totals[(name, day)] = total
    result = []
    for series in (Series.SIGN_INS, Series.REFUSALS):
        if (series, yesterday) not in totals:
            continue
        compared = []
        for day in days[1:]:
            if (series, day) in totals:
                compared.append(totals[series, day])
        result.append(
            DayComparison(
                series=series,
                day=yesterday,
                count=totals[series, yesterday],
                compared=tuple(compared),
            )
        )
    return result


def _count_live_sessions() -> int:
    return OIDCSession.objects.filter(ended_at=None).count()


def _count_pending_revocations() -> int:
    return PendingRevocation.objects.filter(status=RevocationStatus.PENDING).count()


TRENDS = (
    Trend(
        series=Series.SIGN_INS,
        position=10,
        title=_("Sign-ins"),
        model_label="phi_oidc_audit.auditevent",
        url_query={"action": Action.LOGIN_SUCCEEDED},
        is_of_events=True,
    ),
    Trend(
        series=Series.REFUSALS,
        position=20,
        title=_("Refusals by reason"),
        model_label="phi_oidc_audit.auditevent",
        url_query={"outcome": "failure"},
        is_of_events=True,
    ),
    Trend(
        series=Series.CLAIMS,
        position=30,
        title=_("Claims held by age"),
        model_label="django_phi_oidc.storedclaim",
        url_query={},
    ),
    Trend(
        series=Series.LIVE_SESSIONS,
        position=40,
        title=_("Live sessions"),
        model_label="django_phi_oidc.oidcsession",
        url_query={"ended_at__isempty": "1"},
        measure=_count_live_sessions,
    ),
    Trend(
        series=Series.REVOCATIONS,
        position=50,
        title=_("Revocations pending"),
        model_label="django_phi_oidc.pendingrevocation",
        url_query={"status__exact": "pending"},
        measure=_count_pending_revocations,
    ),
    Trend(
        series=Series.UNSEALED,
        position=70,
        title=_("Events not sealed"),
        model_label="phi_oidc_audit.auditcheckpoint",
        url_query={},
    ),
)
"""The charts of the core and of the audit log. Each other app registers its own."""
