"""How things stand: numbers alone, each counted along an index and no further than anybody would read.

A number is for those who may view the rows that it counts. What nobody may see is not asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import DEFAULT_DB_ALIAS
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _

from .. import statements
from ..access.models import EmergencyAccess
from ..audit import browsing
from ..audit.events import Action
from ..audit.models import AuditCheckpoint
from ..claims.models import StoredClaim
from ..claims.reporting import is_overdue
from ..sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from ..watch.models import SecurityAlert
from .drawing import HOUR, Chart, draw, last_hours

MOST = 10_000
MOST_IN_AN_HOUR = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A number of rows, of one model, and the page of the admin that lists them."""

    label: Any
    """Translatable."""
    model: str
    rows: Callable[[datetime], QuerySet[Any]]
    """In the order of an index that finds them."""
    query: str = ""
    """Of the page's address."""
    is_work: bool = False
    """Somebody is to do something, as long as there are any."""

    @property
    def page(self) -> str:
        """The name of the page's URL."""
        return f"admin:django_phi_oidc_{self.model}_changelist"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hourly:
    """Events that are counted by the hour: a title, and the filter of the trail's page that lists them."""

    title: Any
    """Translatable."""
    column: str
    value: str


PANELS = (
    Panel(
        label=_("Live sessions"),
        model="oidcsession",
        rows=lambda now: OIDCSession.objects.filter(ended_at=None).order_by("ended_at"),
        query="ended_at__isempty=1",
    ),
    Panel(
        label=_("Revocations pending"),
        model="pendingrevocation",
        rows=lambda now: PendingRevocation.objects.filter(status=RevocationStatus.PENDING).order_by("due_at"),
        query="status__exact=pending",
    ),
    Panel(label=_("Claims held"), model="storedclaim", rows=lambda now: StoredClaim.objects.order_by("pk")),
    Panel(
        label=_("Claims overdue"),
        model="storedclaim",
        rows=lambda now: StoredClaim.objects.filter(is_overdue(now=now)).order_by("expires_at"),
        query="end=overdue",
        is_work=True,
    ),
    Panel(
        label=_("Open alerts"),
        model="securityalert",
        rows=lambda now: SecurityAlert.objects.filter(acknowledged_at=None).order_by("kind", "key"),
        query="state=open",
        is_work=True,
    ),
    Panel(
        label=_("Emergencies open"),
        model="emergencyaccess",
        rows=lambda now: EmergencyAccess.objects.lasting(now=now).order_by("expires_at"),
        query="state=open",
    ),
    Panel(
        label=_("Emergencies to review"),
        model="emergencyaccess",
        rows=lambda now: EmergencyAccess.objects.waiting(now=now).order_by("-opened_at"),
        query="state=waiting",
        is_work=True,
    ),
)
HOURLY = (
    Hourly(title=_("Sign-ins"), column="action", value=Action.LOGIN_SUCCEEDED),
    Hourly(title=_("Refusals"), column="outcome", value="failure"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """What a panel says."""

    panel: Panel
    count: int

    @property
    def is_cut(self) -> bool:
        """Whether no more was counted."""
        return self.count >= MOST

    @property
    def is_work(self) -> bool:
        """Whether somebody is to do something."""
        return self.panel.is_work and self.count > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """How far the trail is sealed, and how much waits."""

    checkpoint: AuditCheckpoint | None
    waiting: int

    @property
    def is_cut(self) -> bool:
        """Whether no more of what waits was counted."""
        return self.waiting >= MOST


def numbers(*, may_view: Callable[[str], bool], now: datetime) -> list[Number]:
    """Return what the panels say whose models may be viewed; by one SELECT, or none."""
    panels = [panel for panel in PANELS if may_view(panel.model)]
    found = statements.counts([panel.rows(now) for panel in panels], most=MOST, using=DEFAULT_DB_ALIAS)
    return [Number(panel=panel, count=count) for panel, count in zip(panels, found, strict=True)]


def charts(*, now: datetime) -> list[tuple[Hourly, Chart]]:
    """Return what was counted in each of the last hours; by one SELECT for each chart. Raises: AuditUnavailable."""
    hours = last_hours(now)
    times = [*hours, hours[-1] + HOUR]
    found = [browsing.counts(each.column, each.value, times, most=MOST_IN_AN_HOUR) for each in HOURLY]
    return [(each, draw(hours, counts, most=MOST_IN_AN_HOUR)) for each, counts in zip(HOURLY, found, strict=True)]


def log() -> Log:
    """Return where the log stands; by two SELECTs. Raises: AuditUnavailable, RowUnreadable."""
    newest = browsing.page_of_checkpoints(size=1).rows
    return Log(checkpoint=newest[0] if newest else None, waiting=browsing.unsealed(most=MOST))
