"""What this app adds to the pages of officers: the emergency accesses of a person, and how many are
open and to review.
"""

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..._internal.admin_columns import format_utc
from ...audit.descriptions import get_purpose_label
from ..common.overview_parts import OverviewPanel, overview_panels
from ..common.person_forms import MultipleChoiceForm
from ..common.person_page_parts import build_admin_link, list_unavailable
from ..common.person_pages import (
    MAX_ROWS,
    ActionRequest,
    Choices,
    PersonAction,
    PersonSection,
    SectionContent,
    SectionRequest,
    person_actions,
    person_sections,
)
from .lifecycle import close_selected_emergencies
from .models import EmergencyAccess
from .queries import REVIEW_PERMISSION


def build_emergencies(request: SectionRequest) -> SectionContent:
    """Return the emergency accesses that the person opened."""
    emergencies = (
        EmergencyAccess.objects.filter(actor=str(request.person.pk))
        .defer("reason", "note")
        .order_by("-opened_at")
    )
    rows = []
    is_open = False
    for row in emergencies[:MAX_ROWS]:
        if row.reviewed_at:
            review = row.get_verdict_display()
        else:
            review = _("waits for its review")

        has_ended = row.has_ended(now=request.now)
        is_open = is_open or not has_ended
        opened = build_admin_link(
            format_utc(row.opened_at), "phi_oidc_emergency_emergencyaccess", row.pk
        )
        ends = row.closed_at or row.expires_at
        purpose = get_purpose_label(row.purpose)
        rows.append(
            (opened, row.resource, purpose, format_utc(ends), review if has_ended else _("open"))
        )
    return SectionContent(
        rows=rows, unavailable_actions=list_unavailable(is_open or len(rows) == MAX_ROWS, "close")
    )


def _open_emergency_choices(request: ActionRequest) -> Choices:
    rows = EmergencyAccess.objects.currently_open(now=request.now).filter(
        actor=str(request.person.pk)
    )
    emergency_choices = []
    for row in rows.order_by("expires_at").defer("reason", "note"):
        emergency_choices.append((str(row.pk), row.resource))
    return emergency_choices


def _close_emergencies(request: ActionRequest) -> str:
    return close_selected_emergencies(request.chosen_ids, origin=request.origin, now=request.now)


overview_panels.register(
    OverviewPanel(
        position=40,
        label=gettext_lazy("Emergencies open"),
        model_label="phi_oidc_emergency.emergencyaccess",
        rows=lambda now: EmergencyAccess.objects.currently_open(now=now).order_by("expires_at"),
        url_query="state=open",
    )
)
overview_panels.register(
    OverviewPanel(
        position=50,
        label=gettext_lazy("Emergencies to review"),
        model_label="phi_oidc_emergency.emergencyaccess",
        rows=lambda now: EmergencyAccess.objects.awaiting_review(now=now).order_by("-opened_at"),
        url_query="state=waiting",
        needs_action=True,
    )
)
person_sections.register(
    PersonSection(
        name="emergencies",
        position=70,
        permission="phi_oidc_emergency.view_emergencyaccess",
        title=gettext_lazy("Emergency accesses"),
        columns=(
            gettext_lazy("Opened (UTC)"),
            gettext_lazy("Record"),
            gettext_lazy("Purpose"),
            gettext_lazy("Ends (UTC)"),
            gettext_lazy("State"),
        ),
        build=build_emergencies,
    )
)
person_actions.register(
    PersonAction(
        name="close",
        section="emergencies",
        permission=REVIEW_PERMISSION,
        title=gettext_lazy("Close emergency accesses"),
        description=gettext_lazy("They end now. Each must still be reviewed on its own page."),
        run=_close_emergencies,
        choices=_open_emergency_choices,
        form_class=MultipleChoiceForm,
    )
)
