"""What this app adds to the page of a person: the activation codes, and the actions on them."""

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_variables

from ... import conf
from ..._internal.admin_columns import format_utc
from ...provider.labels import get_provider_label
from ..common.person_forms import MultipleChoiceForm, SingleChoiceForm
from ..common.person_page_parts import build_admin_link, list_unavailable
from ..common.person_pages import (
    MAX_ROWS,
    ActionRequest,
    ActionResult,
    Choices,
    PersonAction,
    PersonSection,
    SectionContent,
    SectionRequest,
    person_actions,
    person_sections,
)
from .admin import invite_user, revoke_selected_codes
from .invitations import can_invite
from .models import ActivationCode


def build_activation_codes(request: SectionRequest) -> SectionContent:
    """Return the activation codes for the account."""
    rows = []
    is_redeemable = False
    for row in ActivationCode.objects.filter(user=request.person.pk).order_by("-pk")[:MAX_ROWS]:
        ended = (row.redeemed_at and _("redeemed")) or (row.revoked_at and _("revoked"))
        state = ended or (_("waiting") if row.expires_at > request.now else _("expired"))
        is_redeemable = is_redeemable or (not ended and row.expires_at > request.now)
        link = build_admin_link(
            get_provider_label(row.provider), "phi_oidc_invitations_activationcode", row.pk
        )
        rows.append((link, state, format_utc(row.created_at), format_utc(row.expires_at)))
    unavailable = list_unavailable(
        is_redeemable or len(rows) == MAX_ROWS, "withdraw"
    ) | list_unavailable(_has_provider_with_invitations(), "invite")
    return SectionContent(rows=rows, unavailable_actions=unavailable)


def _has_provider_with_invitations() -> bool:
    return any(provider.provisioning == "invitation" for provider in conf.providers().values())


@sensitive_variables()
def _issue_activation_code(request: ActionRequest) -> ActionResult:
    provider = request.form_data["chosen"]
    invitation = invite_user(request.person, provider, origin=request.origin, now=request.now)
    expires_at = f"{invitation.expires_at:%Y-%m-%d %H:%M}"
    return ActionResult(
        rows=((_("Activation code"), invitation.code), (_("Until (UTC)"), expires_at))
    )


def _provider_choices(request: ActionRequest) -> Choices:
    providers = conf.providers().items()
    choices = []
    for name, provider in providers:
        if provider.provisioning == "invitation":
            choices.append((name, provider.label or name))
    return choices


def _revoke_activation_codes(request: ActionRequest) -> str:
    codes = ActivationCode.objects.filter(
        pk__in=request.form_data["chosen"], user=request.person.pk
    )
    return revoke_selected_codes(codes, origin=request.origin, now=request.now)


def _activation_code_choices(request: ActionRequest) -> Choices:
    rows = ActivationCode.objects.redeemable(now=request.now).filter(user=request.person.pk)
    code_choices = []
    for row in rows.order_by("pk"):
        code_choices.append((str(row.pk), row.provider))
    return code_choices


person_sections.register(
    PersonSection(
        name="activation",
        position=20,
        permission="phi_oidc_invitations.view_activationcode",
        title=gettext_lazy("Activation"),
        columns=(
            gettext_lazy("Provider"),
            gettext_lazy("State"),
            gettext_lazy("Made (UTC)"),
            gettext_lazy("Until (UTC)"),
        ),
        build=build_activation_codes,
    )
)
person_actions.register(
    PersonAction(
        name="invite",
        section="activation",
        permission="phi_oidc_invitations.issue_activationcode",
        title=gettext_lazy("Make an activation code"),
        description=gettext_lazy(
            "The code is shown once. An earlier code for the same provider becomes invalid."
        ),
        run=_issue_activation_code,
        choices=_provider_choices,
        form_class=SingleChoiceForm,
        may_concern=can_invite,
    )
)
person_actions.register(
    PersonAction(
        name="withdraw",
        section="activation",
        permission="phi_oidc_invitations.issue_activationcode",
        title=gettext_lazy("Revoke activation codes"),
        description=gettext_lazy("The codes can no longer be redeemed."),
        run=_revoke_activation_codes,
        choices=_activation_code_choices,
        form_class=MultipleChoiceForm,
    )
)
