"""The deliveries in the admin: the state of each declared sink, and the request to deliver at once.

The pages show no event, so viewing them is not recorded. A worker delivers, not the web server:
only the worker may have the file, the certificates and the network of a sink.
"""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse
from django.utils.text import capfirst
from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..._internal import clock
from ..._internal.admin_theme import ThemedModelAdmin
from ...audit.admin_base import (
    TrailAdminMixin,
    record_request_event,
    require_trail_permission,
    require_view_permission,
)
from ...audit.events import Action
from .delivery import make_due_now
from .fault_texts import get_fault_text
from .models import SinkCursor
from .status import SinkState, SinkStatus, list_sink_statuses
from .tasks import get_declared_sinks

if TYPE_CHECKING:
    SinkAdmin = admin.ModelAdmin[SinkCursor]
else:
    SinkAdmin = ThemedModelAdmin

STATE_LABELS = {
    SinkState.CAUGHT_UP: gettext_lazy("up to date"),
    SinkState.BEHIND: gettext_lazy("delivering"),
    SinkState.LATE: gettext_lazy("behind"),
    SinkState.FAILING: gettext_lazy("failing"),
    SinkState.STOPPED: gettext_lazy("stopped"),
    SinkState.NO_WORKER: gettext_lazy("no worker"),
}
_STATES_WITH_TIME = {
    SinkState.FAILING: gettext_lazy("Failing since %(time)s"),
    SinkState.STOPPED: gettext_lazy("Stopped since %(time)s"),
    SinkState.NO_WORKER: gettext_lazy("Not delivering: no worker has attempted it since %(time)s"),
}
_TYPE_LABELS = {
    "syslog": gettext_lazy("syslog"),
    "https": gettext_lazy("HTTPS"),
    "file": gettext_lazy("file"),
}
_LIST_URL_NAME = "admin:phi_oidc_siem_sinkcursor_changelist"
_CAUSES = {
    SinkState.LATE: (
        gettext_lazy(
            "Events are delivered, but more slowly than they are "
            "sealed, or a run is still in progress."
        ),
        gettext_lazy("Check the load of the worker and of the collector."),
    ),
    SinkState.NO_WORKER: (
        gettext_lazy("A delivery is due, and no worker has attempted it."),
        gettext_lazy(
            "Check that Celery beat and a worker run, and that the task phi_oidc.deliver is in the "
            "schedule. Without Celery, run “phi_oidc delivery deliver” by cron."
        ),
    ),
}

require_delivery_permission = partial(
    require_trail_permission,
    methods=("GET", "HEAD", "POST"),
    has_permission=lambda page, request: page.can_deliver(request),
)


@admin.register(SinkCursor)
class SinkCursorAdmin(TrailAdminMixin, SinkAdmin):
    """Deliveries: the declared sinks, and the form that requests a delivery."""

    def get_urls(self) -> list[Any]:
        return self.build_urls(
            {
                "changelist": ("", self.list_view),
                "deliver": ("<str:name>/deliver/", self.deliver_view),
            }
        )

    def can_deliver(self, request: HttpRequest) -> bool:
        """Return True if this user may request deliveries, which takes both permissions."""
        return self.has_view_permission(request) and request.user.has_perm(
            "phi_oidc_siem.deliver_sinkcursor"
        )

    @require_view_permission
    def list_view(self, request: HttpRequest) -> HttpResponseBase:
        """Show the declared sinks, the most severe state first."""
        now = clock.now()
        statuses = list_sink_statuses(get_declared_sinks(), now=now)
        statuses.sort(key=lambda status: -status.severity)
        rows = [_build_row(status, now=now) for status in statuses]
        title = gettext_lazy("Deliveries of the audit log")
        may_deliver = self.can_deliver(request)
        return self.render_page(
            request, "change_list", title=title, rows=rows, may_deliver=may_deliver
        )

    @require_delivery_permission
    def deliver_view(self, request: HttpRequest, name: str) -> HttpResponseBase:
        """Ask for confirmation (GET), or make the sink due at once (POST), after the event of the
        request.
        """
        if name not in get_declared_sinks():
            raise Http404
        if request.method != "POST":
            return self.render_page(
                request, "deliver", title=gettext_lazy("Deliver now"), name=name
            )
        now = clock.now()
        record_request_event(request, Action.DELIVERY_REQUESTED, resource=f"Sink/{name}")
        make_due_now([name], now=now)
        message = _(
            "A delivery to %(sink)s was requested. A worker starts "
            "it within seconds: reload this page then."
        )
        messages.success(request, message % {"sink": name})
        return HttpResponseRedirect(reverse(_LIST_URL_NAME, current_app=self.admin_site.name))


def _build_row(status: SinkStatus, *, now: datetime) -> dict[str, Any]:
    """Return the texts about a sink. meaning, remedy: what prevents delivery and what to do; empty
    if nothing does.
    """
    cursor = status.cursor
    meaning: Any
    remedy: Any
    if status.state in _CAUSES:
        meaning, remedy = _CAUSES[status.state]
    elif cursor.last_fault:
        text = get_fault_text(cursor.last_fault)
        meaning = text.meaning
        remedy = text.remedy
    else:
        meaning = ""
        remedy = ""
    return {
        "status": status,
        "state": _format_state(status),
        "type": _TYPE_LABELS[status.declaration.type],
        "meaning": meaning,
        "remedy": remedy,
        "lag": format_duration(status.lag, now=now) if status.lag else "",
        "is_due": cursor.due_at <= now,
    }


def format_duration(duration: timedelta, *, now: datetime) -> str:
    """Return the duration in words, in its two largest units from minutes on."""
    if duration < timedelta(minutes=1):
        return _("less than a minute")
    return timesince(now - duration, now)


def _format_state(status: SinkStatus) -> str:
    """Return the state as a sentence with the time since which it lasts."""
    cursor = status.cursor
    sentences = _STATES_WITH_TIME

    since: datetime | None
    if status.state is SinkState.NO_WORKER and not cursor._state.adding:
        since = cursor.due_at
    else:
        since = cursor.failing_since

    if since is None or status.state not in sentences:
        return str(capfirst(STATE_LABELS[status.state]))
    return str(sentences[status.state]) % {"time": f"{since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"}
