"""The dashboard on the index page of the admin. Users who may view none of it see the page unchanged."""

from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponseBase

from .._internal import clock
from ..audit.admin import UNREADABLE_MESSAGE, build_verification_context
from ..audit.search import RowUnreadable
from ..errors import AuditUnavailable
from . import charts, dashboard

_APP_LABEL = "django_phi_oidc"


def install_dashboard(site: AdminSite) -> None:
    """Add the dashboard to the index page of the site, regardless of the order of apps and the project's own changes.

    A site with its own index template keeps it, and may include `admin/django_phi_oidc/desk.html` there.
    """
    index = site.index

    def index_with_dashboard(request: HttpRequest, extra_context: Any = None) -> HttpResponseBase:
        return index(request, {"phi_desk": get_dashboard_context(request), **(extra_context or {})})

    site.index = index_with_dashboard  # type: ignore[method-assign,assignment]  # of this one site
    if site.index_template is None:
        site.index_template = f"admin/{_APP_LABEL}/index.html"


def get_dashboard_context(request: HttpRequest) -> dict[str, Any]:
    """Return what the dashboard shows to this user; empty if they may view none of it.

    Uses six SELECTs. It shows only counts of the audit log, so viewing it is not recorded.
    """

    def can_view(model: str) -> bool:
        return bool(request.user.has_perm(f"{_APP_LABEL}.view_{model}"))

    context: dict[str, Any] = {}
    now = clock.now()
    if counts := dashboard.list_panel_counts(can_view=can_view, now=now):
        context["numbers"] = counts
    sees_events, sees_log = can_view("auditevent"), can_view("auditcheckpoint")
    if sees_events or sees_log:
        try:
            context["trail"] = {
                "sees_events": sees_events,
                "verified": build_verification_context(),
                "charts": dashboard.list_charts(now=now) if sees_events else [],
                "width": charts.CHART_WIDTH,
                "height": charts.CHART_HEIGHT,
            }
            if sees_log:
                context["trail"]["log"] = dashboard.get_log_status()
        except RowUnreadable:
            context["trail"]["unreadable"] = UNREADABLE_MESSAGE
        except AuditUnavailable:
            context["trail"] = {"is_away": True}
    return context
