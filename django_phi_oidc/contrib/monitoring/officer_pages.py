"""What this app adds to the overview of the officers: the open alerts."""

from django.utils.translation import gettext_lazy

from ..common.overview_parts import OverviewPanel, Trend, overview_panels, overview_trends
from .models import SecurityAlert


def _count_open_alerts() -> int:
    return SecurityAlert.objects.filter(acknowledged_at=None).count()


overview_panels.register(
    OverviewPanel(
        position=30,
        label=gettext_lazy("Open alerts"),
        model_label="phi_oidc_monitoring.securityalert",
        rows=lambda now: SecurityAlert.objects.filter(acknowledged_at=None).order_by("kind", "key"),
        url_query="state=open",
        needs_action=True,
    )
)
overview_trends.register(
    Trend(
        series="alerts",
        position=60,
        title=gettext_lazy("Open alerts"),
        model_label="phi_oidc_monitoring.securityalert",
        url_query={"state": "open"},
        measure=_count_open_alerts,
    )
)
