"""What this app adds to the pages of officers: the export of all data of a person."""

import json

from django import forms
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_variables

from ... import conf
from ...access.no_store import add_notice
from ...audit.descriptions import get_purpose_label
from ...audit.purposes import EXPORT_PURPOSES
from ..common.person_forms import ConsentForm
from ..common.person_pages import ActionRequest, ActionResult, PersonAction, person_actions
from .export import export_person
from .recipients import remember_recipient

EXPORT_PERMISSION = "django_phi_oidc.export_pairwisesubject"
EXPORT_REASONS = (
    ("access_request", gettext_lazy("the person asked for a copy of their data")),
    ("complaint", gettext_lazy("a complaint is investigated")),
    ("incident", gettext_lazy("an incident is investigated")),
    ("authority", gettext_lazy("an authority or a court requires it")),
)
"""Why an officer exports all data of a person: the `reason` of the event."""


class ExportForm(ConsentForm):
    """Asks for which purpose, and why; neither is selected initially."""

    purpose = forms.ChoiceField(
        label=gettext_lazy("Purpose"),
        choices=lambda: [
            ("", "---------"),
            *((code, get_purpose_label(code)) for code in EXPORT_PURPOSES),
        ],
    )
    reason = forms.ChoiceField(
        label=gettext_lazy("Reason"), choices=EXPORT_REASONS, widget=forms.RadioSelect
    )


@sensitive_variables()
def _export_person(request: ActionRequest) -> ActionResult:
    data = request.form_data
    remember_recipient(request.actor.user, now=request.now)
    exported = export_person(
        request.person,
        request.subjects,
        claim_declarations=conf.claims(),
        origin=request.origin,
        now=request.now,
        purpose=data["purpose"],
        reason_code=data["reason"],
        actor_user=request.actor.user,
        consent=request.consent,
    )
    if exported.document["redisclosure_notice"]:
        add_notice(request.actor.request)
    return ActionResult(
        rows=(), document=json.dumps(exported.document, indent=2, ensure_ascii=False)
    )


person_actions.register(
    PersonAction(
        name="export",
        section="subjects",
        permission=EXPORT_PERMISSION,
        title=gettext_lazy("Export all data"),
        description=gettext_lazy(
            "You get a file with every stored value of this person, to hand over to them."
        ),
        run=_export_person,
        form_class=ExportForm,
        needs_provider_session=True,
    )
)
