"""The tiles of the overview: numbers that are counted along an index up to a maximum, and three
states.

A tile is shown to users who may view the rows that it counts. Other numbers are not queried.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from operator import attrgetter

from django.db import DEFAULT_DB_ALIAS
from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ...audit import search
from ...audit.admin.audit_log import UNREADABLE_MESSAGE, build_verification_context
from ...audit.search import RowUnreadable
from ...claims.models import StoredClaim
from ...sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from ..common.admin_urls import find_page_url
from ..common.overview_parts import CanView, LogTile, OverviewPanel, OverviewTile, overview_panels
from .hourly_counts import Series, find_last_measurement
from .row_counts import count_rows
from .trends import TrendChart

MAX_COUNT = 10_000
LATE_SEALING = timedelta(minutes=10)
"""Events that wait for longer need attention: a worker seals every few seconds."""


def list_trend_tiles(charts: Sequence[TrendChart], *, site_name: str) -> list[OverviewTile]:
    """Return the totals of the charts of events."""
    labels: dict[str, str] = {Series.SIGN_INS: _("Sign-ins"), Series.REFUSALS: _("Refusals")}
    trend_tiles = []
    for chart in charts:
        if chart.trend.series in labels:
            trend_tiles.append(
                OverviewTile(
                    label=labels[chart.trend.series],
                    value=chart.chart.total,
                    url=find_page_url(site_name, chart.trend.model_label, chart.url_query),
                    note=chart.period.tile_note,
                )
            )
    return trend_tiles


def list_panel_tiles(
    *, can_view: Callable[[str], bool], site_name: str, now: datetime
) -> list[OverviewTile]:
    """Return the numbers of the panels whose models may be viewed, by one SELECT or none."""
    panels = []
    for panel in sorted(overview_panels, key=attrgetter("position")):
        if can_view(panel.model_label):
            panels.append(panel)
    counts = count_rows(
        [panel.rows(now) for panel in panels], limit=MAX_COUNT, using=DEFAULT_DB_ALIAS
    )
    panel_tiles = []
    for panel, count in zip(panels, counts, strict=True):
        panel_tiles.append(
            OverviewTile(
                label=panel.label,
                value=_format_count(count),
                url=find_page_url(site_name, panel.model_label, panel.url_query),
                needs_action=panel.needs_action and count > 0,
            )
        )
    return panel_tiles


def _format_count(count: int) -> int | str:
    """Return the count with a plus sign if counting stopped at the maximum."""
    if count >= MAX_COUNT:
        return f"{count}+"
    return count


def create_overdue_tile(*, site_name: str) -> OverviewTile:
    """Return how many claims were overdue when that was last measured, by one SELECT."""
    label = _("Claims overdue")
    url = find_page_url(site_name, "django_phi_oidc.storedclaim", "end=overdue")
    measured = find_last_measurement(Series.OVERDUE)
    if measured is None:
        return OverviewTile(label=label, value="–", note=_("not measured yet"), url=url)
    note = _("measured at %(time)s UTC") % {"time": f"{measured.hour:02d}:00"}
    return OverviewTile(
        label=label, value=measured.count, note=note, url=url, needs_action=measured.count > 0
    )


def create_log_tile(can_view: CanView, site_name: str, now: datetime) -> OverviewTile:
    """Return how many events wait to be sealed, by two SELECTs. Raises: AuditUnavailable."""
    label = _("Events not sealed")
    url = find_page_url(site_name, "phi_oidc_audit.auditcheckpoint")
    try:
        rows = search.list_checkpoints(page_size=1).rows
    except RowUnreadable:
        return OverviewTile(
            label=label, value=_("Unreadable"), note=UNREADABLE_MESSAGE, url=url, needs_action=True
        )
    count = search.count_unsealed(max_count=MAX_COUNT)

    lag = None
    if rows:
        lag = max(now - rows[0].sealed_at, timedelta(0))

    note = _("never sealed")
    if lag is not None:
        note = _("last sealed: %(time)s") % {"time": format_past(rows[0].sealed_at, now=now)}

    return OverviewTile(
        label=label,
        value=_format_count(count),
        note=note,
        url=url,
        needs_action=count > 0 and (lag is None or lag > LATE_SEALING),
    )


def create_verification_tile(can_view: CanView, site_name: str, now: datetime) -> OverviewTile:
    """Return the time and the result of the last verification, by one SELECT. Raises:
    AuditUnavailable.
    """
    sees_events = can_view("phi_oidc_audit.auditevent")
    verified = build_verification_context()
    label = _("Last verification")
    if sees_events:
        url = find_page_url(site_name, "phi_oidc_audit.auditevent")
    else:
        url = find_page_url(site_name, "phi_oidc_audit.auditcheckpoint")
    if "unreadable" in verified:
        return OverviewTile(
            label=label, value=_("Unreadable"), note=UNREADABLE_MESSAGE, url=url, needs_action=True
        )
    if not verified:
        return OverviewTile(label=label, value=_("Never"), url=url)
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
    return OverviewTile(
        label=label, value=value, note=note, url=url, needs_action=not verified["is_clean"]
    )


def format_past(time: datetime, *, now: datetime) -> str:
    """Return how long ago that was, in its largest unit from minutes on."""
    if now - time < timedelta(minutes=1):
        return _("just now")
    return _("%(duration)s ago") % {"duration": timesince(time, now, depth=1)}


PANELS = (
    OverviewPanel(
        position=10,
        label=gettext_lazy("Live sessions"),
        model_label="django_phi_oidc.oidcsession",
        rows=lambda now: OIDCSession.objects.filter(ended_at=None).order_by("ended_at"),
        url_query="ended_at__isempty=1",
    ),
    OverviewPanel(
        position=20,
        label=gettext_lazy("Revocations pending"),
        model_label="django_phi_oidc.pendingrevocation",
        rows=lambda now: PendingRevocation.objects.filter(status=RevocationStatus.PENDING).order_by(
            "due_at"
        ),
        url_query="status__exact=pending",
    ),
    OverviewPanel(
        position=60,
        label=gettext_lazy("Claims held"),
        model_label="django_phi_oidc.storedclaim",
        rows=lambda now: StoredClaim.objects.order_by("pk"),
    ),
)
"""The panels of the core. Each other app registers its own."""
LOG_TILES = (
    LogTile(position=20, model_labels=("phi_oidc_audit.auditcheckpoint",), create=create_log_tile),
    LogTile(
        position=30,
        model_labels=("phi_oidc_audit.auditevent", "phi_oidc_audit.auditcheckpoint"),
        create=create_verification_tile,
    ),
)
"""The tiles of the audit log. Each other app registers its own."""
