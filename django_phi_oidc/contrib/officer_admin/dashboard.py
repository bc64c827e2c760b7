"""The tiles of the overview: numbers that are counted along an index up to a maximum, and three
states.

A tile is shown to users who may view the rows that it counts. Other numbers are not queried.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import DEFAULT_DB_ALIAS
from django.db.models import QuerySet
from django.urls import NoReverseMatch, reverse
from django.utils.text import capfirst
from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, pgettext

from ..._internal import sql
from ...audit import search
from ...audit.admin.audit_log import UNREADABLE_MESSAGE, build_verification_context
from ...audit.search import RowUnreadable
from ...claims.models import StoredClaim
from ...sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from ..emergency.models import EmergencyAccess
from ..monitoring.models import SecurityAlert
from ..siem.admin import STATE_LABELS
from ..siem.status import list_sink_statuses
from ..siem.tasks import get_declared_sinks
from .hourly_counts import Series, find_last_measurement
from .trends import TrendChart

MAX_COUNT = 10_000
LATE_SEALING = timedelta(minutes=10)
"""Events that wait for longer need attention: a worker seals every few seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DashboardPanel:
    """A number of rows of one model, and the admin page that lists them."""

    label: Any
    """Translatable."""
    model_label: str
    rows: Callable[[datetime], QuerySet[Any]]
    """In the order of an index that finds these rows."""
    url_query: str = ""
    needs_action: bool = False


PANELS = (
    DashboardPanel(
        label=gettext_lazy("Live sessions"),
        model_label="django_phi_oidc.oidcsession",
        rows=lambda now: OIDCSession.objects.filter(ended_at=None).order_by("ended_at"),
        url_query="ended_at__isempty=1",
    ),
    DashboardPanel(
        label=gettext_lazy("Revocations pending"),
        model_label="django_phi_oidc.pendingrevocation",
        rows=lambda now: PendingRevocation.objects.filter(status=RevocationStatus.PENDING).order_by(
            "due_at"
        ),
        url_query="status__exact=pending",
    ),
    DashboardPanel(
        label=gettext_lazy("Open alerts"),
        model_label="phi_oidc_monitoring.securityalert",
        rows=lambda now: SecurityAlert.objects.filter(acknowledged_at=None).order_by("kind", "key"),
        url_query="state=open",
        needs_action=True,
    ),
    DashboardPanel(
        label=gettext_lazy("Emergencies open"),
        model_label="phi_oidc_emergency.emergencyaccess",
        rows=lambda now: EmergencyAccess.objects.currently_open(now=now).order_by("expires_at"),
        url_query="state=open",
    ),
    DashboardPanel(
        label=gettext_lazy("Emergencies to review"),
        model_label="phi_oidc_emergency.emergencyaccess",
        rows=lambda now: EmergencyAccess.objects.awaiting_review(now=now).order_by("-opened_at"),
        url_query="state=waiting",
        needs_action=True,
    ),
    DashboardPanel(
        label=gettext_lazy("Claims held"),
        model_label="django_phi_oidc.storedclaim",
        rows=lambda now: StoredClaim.objects.order_by("pk"),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DashboardTile:
    """A number or a state, with a link to the page that explains it."""

    label: Any
    value: Any
    """A number, or a state in words."""
    url: str
    """Empty if the admin site has no such page."""
    note: Any = ""
    needs_action: bool = False

    @property
    def is_text(self) -> bool:
        """Whether the value is a state in words."""
        return not str(self.value).rstrip("+").isdecimal()


def find_page_url(
    site_name: str,
    model_label: str,
    url_query: str = "",
    *,
    page: str = "changelist",
    **kwargs: Any,
) -> str:
    """Return the URL of a page of the model; empty if the admin site has none."""
    try:
        url = reverse(
            f"admin:{model_label.replace('.', '_')}_{page}",
            kwargs=kwargs or None,
            current_app=site_name,
        )
    except NoReverseMatch:
        return ""
    if url_query:
        return f"{url}?{url_query}"
    return url


def format_past(time: datetime, *, now: datetime) -> str:
    """Return how long ago that was, in its largest unit from minutes on."""
    if now - time < timedelta(minutes=1):
        return _("just now")
    return _("%(duration)s ago") % {"duration": timesince(time, now, depth=1)}


def list_trend_tiles(charts: Sequence[TrendChart], *, site_name: str) -> list[DashboardTile]:
    """Return the totals of the charts of events."""
    labels = {Series.SIGN_INS: _("Sign-ins"), Series.REFUSALS: _("Refusals")}
    return [
        DashboardTile(
            label=labels[chart.trend.series],
            value=chart.chart.total,
            url=find_page_url(site_name, chart.trend.model_label, chart.url_query),
            note=chart.period.tile_note,
        )
        for chart in charts
        if chart.trend.series in labels
    ]


def list_panel_tiles(
    *, can_view: Callable[[str], bool], site_name: str, now: datetime
) -> list[DashboardTile]:
    """Return the numbers of the panels whose models may be viewed, by one SELECT or none."""
    panels = [panel for panel in PANELS if can_view(panel.model_label)]
    counts = sql.count_rows(
        [panel.rows(now) for panel in panels], limit=MAX_COUNT, using=DEFAULT_DB_ALIAS
    )
    return [
        DashboardTile(
            label=panel.label,
            # Counting stopped at the maximum.
            value=f"{count}+" if count >= MAX_COUNT else count,
            url=find_page_url(site_name, panel.model_label, panel.url_query),
            needs_action=panel.needs_action and count > 0,
        )
        for panel, count in zip(panels, counts, strict=True)
    ]


def create_overdue_tile(*, site_name: str) -> DashboardTile:
    """Return how many claims were overdue when that was last measured, by one SELECT."""
    label = _("Claims overdue")
    url = find_page_url(site_name, "django_phi_oidc.storedclaim", "end=overdue")
    measured = find_last_measurement(Series.OVERDUE)
    if measured is None:
        return DashboardTile(label=label, value="–", note=_("not measured yet"), url=url)
    note = _("measured at %(time)s UTC") % {"time": f"{measured.hour:02d}:00"}
    return DashboardTile(
        label=label, value=measured.count, note=note, url=url, needs_action=measured.count > 0
    )


def create_delivery_tile(*, site_name: str, now: datetime) -> DashboardTile:
    """Return the state of the sink that is worst off. Raises: AuditUnavailable."""
    sinks = get_declared_sinks()
    statuses = list_sink_statuses(sinks, now=now)
    label = _("Delivery to the SIEM")
    url = find_page_url(site_name, "phi_oidc_siem.sinkcursor")
    if not statuses:
        return DashboardTile(
            label=label, value=pgettext("list", "None"), note=_("no sink is declared"), url=url
        )
    if faulty := sorted(
        filter(lambda status: status.needs_action, statuses), key=lambda status: -status.severity
    ):
        note = ", ".join(
            f"{status.declaration.name}: {STATE_LABELS[status.state]}" for status in faulty
        )
        return DashboardTile(
            label=label,
            value=capfirst(STATE_LABELS[faulty[0].state]),
            note=note,
            url=url,
            needs_action=True,
        )
    note = ngettext("%(count)d sink", "%(count)d sinks", len(statuses)) % {"count": len(statuses)}
    slowest = max(statuses, key=lambda status: status.missing_count)
    return DashboardTile(
        label=label, value=capfirst(STATE_LABELS[slowest.state]), note=note, url=url
    )


def create_log_tile(*, site_name: str, now: datetime) -> DashboardTile:
    """Return how many events wait to be sealed, by two SELECTs. Raises: AuditUnavailable."""
    label = _("Events not sealed")
    url = find_page_url(site_name, "phi_oidc_audit.auditcheckpoint")
    try:
        rows = search.list_checkpoints(page_size=1).rows
    except RowUnreadable:
        return DashboardTile(
            label=label, value=_("Unreadable"), note=UNREADABLE_MESSAGE, url=url, needs_action=True
        )
    count = search.count_unsealed(max_count=MAX_COUNT)

    lag = None
    if rows:
        lag = max(now - rows[0].sealed_at, timedelta(0))

    note = _("never sealed")
    if lag is not None:
        note = _("last sealed: %(time)s") % {"time": format_past(rows[0].sealed_at, now=now)}

    value: int | str
    if count >= MAX_COUNT:
        value = f"{count}+"
    else:
        value = count

    return DashboardTile(
        label=label,
        value=value,
        note=note,
        url=url,
        needs_action=count > 0 and (lag is None or lag > LATE_SEALING),
    )


def create_verification_tile(*, sees_events: bool, site_name: str, now: datetime) -> DashboardTile:
    """Return the time and the result of the last verification, by one SELECT. Raises:
    AuditUnavailable.
    """
    verified = build_verification_context()
    label = _("Last verification")
    url = find_page_url(
        site_name, f"phi_oidc_audit.{'auditevent' if sees_events else 'auditcheckpoint'}"
    )
    if "unreadable" in verified:
        return DashboardTile(
            label=label, value=_("Unreadable"), note=UNREADABLE_MESSAGE, url=url, needs_action=True
        )
    if not verified:
        return DashboardTile(label=label, value=_("Never"), url=url)
    event = verified["event"]
    if sees_events:
        url = find_page_url(
            site_name, "phi_oidc_audit.auditevent", page="change", event_id=event.id
        )
    findings = verified.get("findings")
    value = _("Failed")
    if verified["is_clean"]:
        value = _("No findings")
    elif isinstance(findings, int) and findings:
        value = ngettext("%(count)d finding", "%(count)d findings", findings) % {"count": findings}
    note = format_past(event.occurred_at, now=now)
    return DashboardTile(
        label=label, value=value, note=note, url=url, needs_action=not verified["is_clean"]
    )
