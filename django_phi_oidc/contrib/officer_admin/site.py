"""The overview on the index page of the admin. Users who may view none of it see the page
unchanged.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponseBase

from ..._internal import clock
from ...errors import AuditUnavailable
from ..common.admin_urls import find_page_url
from ..common.overview_parts import OverviewTile, overview_log_tiles
from . import charts, dashboard, trends
from .person_views import can_find_people

PERIOD_PARAMETER = "period"


def install_dashboard(site: AdminSite) -> None:
    """Add the overview to the index page of the site, regardless of the order of apps and the
    project's own changes.

    A site with its own index template keeps it, and may include
    `admin/phi_oidc_officer_admin/overview.html` there.
    """
    index = site.index

    def index_with_dashboard(request: HttpRequest, extra_context: Any = None) -> HttpResponseBase:
        context = {
            "phi_overview": get_dashboard_context(request, site_name=site.name),
            "phi_finds_people": can_find_people(request.user),
        }
        return index(request, {**context, **(extra_context or {})})

    site.index = index_with_dashboard  # type: ignore[method-assign,assignment]  # of this one site
    if site.index_template is None:
        site.index_template = "admin/phi_oidc_officer_admin/index.html"


def get_dashboard_context(request: HttpRequest, *, site_name: str) -> dict[str, Any]:
    """Return what the overview shows to this user; empty if they may view none of it.

    Uses nine SELECTs at most, and one more for each sink that is behind. It shows only counts of
    the audit log, so viewing it is not recorded.
    """

    def can_view(model_label: str) -> bool:
        app_label, _dot, model_name = model_label.partition(".")
        return bool(request.user.has_perm(f"{app_label}.view_{model_name}"))

    now = clock.now()
    chosen = request.GET.get(PERIOD_PARAMETER, "")
    if chosen not in trends.PERIODS:
        chosen = trends.DEFAULT_PERIOD

    trend_charts = trends.list_trend_charts(trends.PERIODS[chosen], can_view=can_view, now=now)
    tiles = [
        *dashboard.list_trend_tiles(trend_charts, site_name=site_name),
        *dashboard.list_panel_tiles(can_view=can_view, site_name=site_name, now=now),
    ]
    if can_view("django_phi_oidc.storedclaim"):
        tiles.append(dashboard.create_overdue_tile(site_name=site_name))
    log_tiles, is_log_away = _list_log_tiles(can_view=can_view, site_name=site_name, now=now)
    if not (tiles or log_tiles or is_log_away):
        return {}

    comparisons = None
    if can_view("phi_oidc_audit.auditevent"):
        comparisons = trends.compare_yesterday(now=now)

    return {
        "tiles": [*tiles, *log_tiles],
        "is_log_away": is_log_away,
        "comparisons": comparisons,
        "charts": [_build_figure(chart, site_name=site_name) for chart in trend_charts],
        "chart_height": charts.CHART_HEIGHT,
        "periods": [(key, period.label, key == chosen) for key, period in trends.PERIODS.items()],
    }


def _list_log_tiles(
    *, can_view: Callable[[str], bool], site_name: str, now: datetime
) -> tuple[Sequence[OverviewTile], bool]:
    """Return the tiles that read the audit log, and whether it is unavailable."""
    tiles = []
    try:
        for log_tile in sorted(overview_log_tiles, key=attrgetter("position")):
            if any(can_view(label) for label in log_tile.model_labels):
                tiles.append(log_tile.create(can_view, site_name, now))
    except AuditUnavailable:
        return [], True
    return tiles, False


def _build_figure(chart: trends.TrendChart, *, site_name: str) -> dict[str, Any]:
    return {
        "trend": chart,
        "chart": chart.chart,
        "url": find_page_url(site_name, chart.trend.model_label, chart.url_query),
    }
