"""The desk above the list of the admin's first page. Whoever may view nothing of it sees the page as it was."""

from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponseBase

from .. import clock
from ..audit.admin import UNREADABLE, verification
from ..audit.browsing import RowUnreadable
from ..errors import AuditUnavailable
from . import counting, drawing

_APP = "django_phi_oidc"


def lay_desk(site: AdminSite) -> None:
    """Let the site's first page have the desk, whatever else the project changes of it, and in whatever order apps are.

    A site that has a page of its own keeps it, and may include `admin/django_phi_oidc/desk.html` there.
    """
    index = site.index

    def with_desk(request: HttpRequest, extra_context: Any = None) -> HttpResponseBase:
        return index(request, {"phi_desk": desk(request), **(extra_context or {})})

    site.index = with_desk  # type: ignore[method-assign,assignment]  # of this one site
    if site.index_template is None:
        site.index_template = f"admin/{_APP}/index.html"


def desk(request: HttpRequest) -> dict[str, Any]:
    """Return what the desk shows to this person; empty where they may view nothing of it.

    By six SELECTs. Of the trail nothing is shown but counts, so it is no look at it.
    """

    def may_view(model: str) -> bool:
        return bool(request.user.has_perm(f"{_APP}.view_{model}"))

    shown: dict[str, Any] = {}
    now = clock.now()
    if found := counting.numbers(may_view=may_view, now=now):
        shown["numbers"] = found
    sees_events, sees_log = may_view("auditevent"), may_view("auditcheckpoint")
    if sees_events or sees_log:
        try:
            shown["trail"] = {
                "sees_events": sees_events,
                "verified": verification(),
                "charts": counting.charts(now=now) if sees_events else [],
                "width": drawing.WIDTH,
                "height": drawing.HEIGHT,
            }
            if sees_log:
                shown["trail"]["log"] = counting.log()
        except RowUnreadable:
            shown["trail"]["unreadable"] = UNREADABLE
        except AuditUnavailable:
            shown["trail"] = {"is_away": True}
    return shown
