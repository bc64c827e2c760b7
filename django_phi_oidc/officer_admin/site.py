"""The desk above the list of the admin's first page. Whoever may view nothing of it sees the page as it was."""

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
    """Let the site's first page have the desk, whatever else the project changes of it, and in whatever order apps are.

    A site that has a page of its own keeps it, and may include `admin/django_phi_oidc/desk.html` there.
    """
    index = site.index

    def with_desk(request: HttpRequest, extra_context: Any = None) -> HttpResponseBase:
        return index(request, {"phi_desk": get_dashboard_context(request), **(extra_context or {})})

    site.index = with_desk  # type: ignore[method-assign,assignment]  # of this one site
    if site.index_template is None:
        site.index_template = f"admin/{_APP_LABEL}/index.html"


def get_dashboard_context(request: HttpRequest) -> dict[str, Any]:
    """Return what the desk shows to this person; empty where they may view nothing of it.

    By six SELECTs. Of the trail nothing is shown but counts, so it is no look at it.
    """

    def may_view(model: str) -> bool:
        return bool(request.user.has_perm(f"{_APP_LABEL}.view_{model}"))

    shown: dict[str, Any] = {}
    now = clock.now()
    if found := dashboard.list_panel_counts(can_view=may_view, now=now):
        shown["numbers"] = found
    sees_events, sees_log = may_view("auditevent"), may_view("auditcheckpoint")
    if sees_events or sees_log:
        try:
            shown["trail"] = {
                "sees_events": sees_events,
                "verified": build_verification_context(),
                "charts": dashboard.list_charts(now=now) if sees_events else [],
                "width": charts.CHART_WIDTH,
                "height": charts.CHART_HEIGHT,
            }
            if sees_log:
                shown["trail"]["log"] = dashboard.get_log_status()
        except RowUnreadable:
            shown["trail"]["unreadable"] = UNREADABLE_MESSAGE
        except AuditUnavailable:
            shown["trail"] = {"is_away": True}
    return shown
