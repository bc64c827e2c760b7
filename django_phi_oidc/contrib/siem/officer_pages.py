"""What this app adds to the overview of the officers: the state of the deliveries."""

from datetime import datetime

from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext

from ..common.admin_urls import find_page_url
from ..common.overview_parts import CanView, LogTile, OverviewTile, overview_log_tiles
from .admin import STATE_LABELS
from .status import list_sink_statuses
from .tasks import get_declared_sinks


def create_delivery_tile(can_view: CanView, site_name: str, now: datetime) -> OverviewTile:
    """Return the state of the sink that is worst off. Raises: AuditUnavailable."""
    sinks = get_declared_sinks()
    statuses = list_sink_statuses(sinks, now=now)
    label = _("Delivery to the SIEM")
    url = find_page_url(site_name, "phi_oidc_siem.sinkcursor")
    if not statuses:
        return OverviewTile(
            label=label, value=pgettext("list", "None"), note=_("no sink is declared"), url=url
        )
    if faulty := sorted(
        filter(lambda status: status.needs_action, statuses), key=lambda status: -status.severity
    ):
        note = ", ".join(
            f"{status.declaration.name}: {STATE_LABELS[status.state]}" for status in faulty
        )
        return OverviewTile(
            label=label,
            value=capfirst(STATE_LABELS[faulty[0].state]),
            note=note,
            url=url,
            needs_action=True,
        )
    note = ngettext("%(count)d sink", "%(count)d sinks", len(statuses)) % {"count": len(statuses)}
    slowest = max(statuses, key=lambda status: status.missing_count)
    return OverviewTile(
        label=label, value=capfirst(STATE_LABELS[slowest.state]), note=note, url=url
    )


overview_log_tiles.register(
    LogTile(position=10, model_labels=("phi_oidc_siem.sinkcursor",), create=create_delivery_tile)
)
