"""The parts of the overview on the index page of the admin: panels, tiles and charts.

Apps create them in their module `officer_pages` and add them to the registries
below. A part is shown to users who may view the rows of its model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from django.db.models import QuerySet

from ...extensions import Registry

CanView = Callable[[str], bool]
"""Returns whether the user may view the rows of a model, by its label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewPanel:
    """A number of rows of one model, and the admin page that lists them."""

    position: int
    """Panels are shown in the order of their positions, regardless of INSTALLED_APPS."""
    label: Any
    """Translatable."""
    model_label: str
    rows: Callable[[datetime], QuerySet[Any]]
    """In the order of an index that finds these rows."""
    url_query: str = ""
    needs_action: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewTile:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class LogTile:
    """A tile that reads the audit log. Without the audit log, no such tile is shown."""

    position: int
    """Tiles are shown in the order of their positions, regardless of INSTALLED_APPS."""
    model_labels: tuple[str, ...]
    """The tile is shown to users who may view the rows of one of these models."""
    create: Callable[[CanView, str, datetime], OverviewTile]
    """Return the tile for what the user may view, the name of the admin site, and the current
    time. Raises: AuditUnavailable.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """A series with a chart, and the admin page that lists its rows."""

    series: str
    """The name of the numbers in the table of hourly counts."""
    position: int
    """Charts are shown in the order of their positions, regardless of INSTALLED_APPS."""
    title: Any
    model_label: str
    url_query: Mapping[str, str]
    is_of_events: bool = False
    """Whether the numbers of several hours are added. Otherwise the highest one counts."""
    measure: Callable[[], int] | None = None
    """Returns the number that is stored once in each hour. None: the numbers are counted
    elsewhere.
    """

    @property
    def url_name(self) -> str:
        return f"admin:{self.model_label.replace('.', '_')}_changelist"

    def build_url_query(self, since: datetime) -> str:
        """Return the query string of the page; since: the start of the period, which a list of
        events begins at.
        """
        if self.is_of_events:
            times = {"since": f"{since.astimezone(UTC):%Y-%m-%dT%H:%M}"}
        else:
            times = {}
        return urlencode({**self.url_query, **times})


overview_log_tiles: Registry[LogTile] = Registry(
    "Show the state of the audit log on the overview of the officers."
)
overview_panels: Registry[OverviewPanel] = Registry(
    "Show a number of rows on the overview of the officers."
)
overview_trends: Registry[Trend] = Registry(
    "Show a chart of hourly counts on the overview of the officers."
)
