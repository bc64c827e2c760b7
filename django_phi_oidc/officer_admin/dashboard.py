"""The numbers of the dashboard. Each is counted along an index, up to a maximum.

A number is shown to users who may view the rows that it counts. Other numbers are not queried.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import DEFAULT_DB_ALIAS
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _

from .._internal import sql
from ..access.emergency.models import EmergencyAccess
from ..anomalies.models import SecurityAlert
from ..audit import search
from ..audit.events import Action
from ..audit.models import AuditCheckpoint
from ..claims.models import StoredClaim
from ..claims.retention_report import get_overdue_condition
from ..sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from .charts import HOUR, Chart, create_chart, get_hour_starts

MAX_COUNT = 10_000
MAX_COUNT_PER_HOUR = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DashboardPanel:
    """A number of rows of one model, and the admin page that lists them."""

    label: Any
    """Translatable."""
    model_name: str
    rows: Callable[[datetime], QuerySet[Any]]
    """In the order of an index that finds these rows."""
    url_query: str = ""
    needs_action: bool = False

    @property
    def url_name(self) -> str:
        return f"admin:django_phi_oidc_{self.model_name}_changelist"


@dataclass(frozen=True, slots=True, kw_only=True)
class HourlyChart:
    """Events that are counted per hour: a title, and the filter of the audit log's page that lists them."""

    title: Any
    """Translatable."""
    column: str
    value: str


PANELS = (
    DashboardPanel(
        label=_("Live sessions"),
        model_name="oidcsession",
        rows=lambda now: OIDCSession.objects.filter(ended_at=None).order_by("ended_at"),
        url_query="ended_at__isempty=1",
    ),
    DashboardPanel(
        label=_("Revocations pending"),
        model_name="pendingrevocation",
        rows=lambda now: PendingRevocation.objects.filter(status=RevocationStatus.PENDING).order_by("due_at"),
        url_query="status__exact=pending",
    ),
    DashboardPanel(
        label=_("Claims held"), model_name="storedclaim", rows=lambda now: StoredClaim.objects.order_by("pk")
    ),
    DashboardPanel(
        label=_("Claims overdue"),
        model_name="storedclaim",
        rows=lambda now: StoredClaim.objects.filter(get_overdue_condition(now=now)).order_by("expires_at"),
        url_query="end=overdue",
        needs_action=True,
    ),
    DashboardPanel(
        label=_("Open alerts"),
        model_name="securityalert",
        rows=lambda now: SecurityAlert.objects.filter(acknowledged_at=None).order_by("kind", "key"),
        url_query="state=open",
        needs_action=True,
    ),
    DashboardPanel(
        label=_("Emergencies open"),
        model_name="emergencyaccess",
        rows=lambda now: EmergencyAccess.objects.currently_open(now=now).order_by("expires_at"),
        url_query="state=open",
    ),
    DashboardPanel(
        label=_("Emergencies to review"),
        model_name="emergencyaccess",
        rows=lambda now: EmergencyAccess.objects.awaiting_review(now=now).order_by("-opened_at"),
        url_query="state=waiting",
        needs_action=True,
    ),
)
HOURLY_CHARTS = (
    HourlyChart(title=_("Sign-ins"), column="action", value=Action.LOGIN_SUCCEEDED),
    HourlyChart(title=_("Refusals"), column="outcome", value="failure"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelCount:
    panel: DashboardPanel
    count: int

    @property
    def is_capped(self) -> bool:
        """Whether counting stopped at the maximum."""
        return self.count >= MAX_COUNT

    @property
    def needs_action(self) -> bool:
        return self.panel.needs_action and self.count > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogStatus:
    """The newest checkpoint, and the number of events that wait to be sealed."""

    checkpoint: AuditCheckpoint | None
    unsealed_count: int

    @property
    def is_capped(self) -> bool:
        """Whether counting stopped at the maximum."""
        return self.unsealed_count >= MAX_COUNT


def list_panel_counts(*, can_view: Callable[[str], bool], now: datetime) -> list[PanelCount]:
    """Return the numbers of the panels whose models may be viewed, by one SELECT or none."""
    panels = [panel for panel in PANELS if can_view(panel.model_name)]
    counts = sql.count_rows([panel.rows(now) for panel in panels], limit=MAX_COUNT, using=DEFAULT_DB_ALIAS)
    return [PanelCount(panel=panel, count=count) for panel, count in zip(panels, counts, strict=True)]


def list_charts(*, now: datetime) -> list[tuple[HourlyChart, Chart]]:
    """Return the counts of the last hours, by one SELECT per chart. Raises: AuditUnavailable."""
    hours = get_hour_starts(now)
    times = [*hours, hours[-1] + HOUR]
    charts = []
    for hourly in HOURLY_CHARTS:
        counts = search.count_events(hourly.column, hourly.value, times, max_count=MAX_COUNT_PER_HOUR)
        charts.append((hourly, create_chart(hours, counts, max_count=MAX_COUNT_PER_HOUR)))
    return charts


def get_log_status() -> LogStatus:
    """Return the state of the log, by two SELECTs. Raises: AuditUnavailable, RowUnreadable."""
    rows = search.list_checkpoints(page_size=1).rows
    unsealed_count = search.count_unsealed(max_count=MAX_COUNT)
    return LogStatus(checkpoint=rows[0] if rows else None, unsealed_count=unsealed_count)
