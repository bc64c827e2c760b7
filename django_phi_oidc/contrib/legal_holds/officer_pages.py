"""What this app adds to the page of a person: the legal holds, and the actions on them."""

import uuid
from collections import Counter
from datetime import datetime

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.debug import sensitive_variables

from ..._internal.admin_columns import format_utc
from ..common.person_forms import ConsentForm, MultipleChoiceForm, SingleChoiceForm
from ..common.person_page_parts import build_admin_link, build_disclosure_result, list_unavailable
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
from ..common.visible_text import validate_visible_text
from .forms import FutureUntilMixin
from .legal_hold_disclosure import DISCLOSE_PERMISSION, disclose_held_claims
from .legal_holds import list_active_holds, place_hold, release_hold
from .models import LegalHold


class DiscloseForm(SingleChoiceForm, ConsentForm):
    """Asks for the subject."""


class PlaceHoldForm(FutureUntilMixin, SingleChoiceForm):
    reason = forms.CharField(
        label=gettext_lazy("Case reference"),
        max_length=255,
        validators=[validate_visible_text],
        help_text=gettext_lazy("For your own use. Not written to the audit log."),
    )
    until = forms.DateTimeField(
        label=gettext_lazy("Until"),
        required=False,
        help_text=gettext_lazy(
            "As in 2027-11-24 16:05, in this site’s time zone. Empty: until it is released."
        ),
    )


def build_holds(request: SectionRequest) -> SectionContent:
    """Return the legal holds on the subjects of the person."""
    found = list(
        LegalHold.objects.filter(subject__in=request.subjects).order_by("-placed_at")[:MAX_ROWS]
    )
    rows = []
    for row in found:
        until = format_utc(row.until) or _("until it is released")
        link = build_admin_link(row.reason, "phi_oidc_legal_holds_legalhold", row.pk)
        rows.append((link, format_utc(row.placed_at), until, format_utc(row.released_at)))
    has_active_hold = any(_is_active(row, now=request.now) for row in found)
    unavailable = list_unavailable(
        has_active_hold or len(found) == MAX_ROWS, "release", "disclose"
    ) | list_unavailable(request.subjects, "hold")
    return SectionContent(rows=rows, unavailable_actions=unavailable)


def _is_active(hold: LegalHold, *, now: datetime) -> bool:
    return hold.released_at is None and (hold.until is None or hold.until > now)


def _place_hold(request: ActionRequest) -> str:
    data = request.form_data
    subject = uuid.UUID(data["chosen"])
    reason = data["reason"]
    until = data["until"]
    place_hold(subject, reason=reason, until=until, origin=request.origin, now=request.now)
    return _("The hold was placed.")


def _subject_choices(request: ActionRequest) -> Choices:
    subjects = request.subjects
    issuers = Counter(subject.issuer for subject in subjects)
    choices = []
    for subject in subjects:
        label = subject.issuer
        if issuers[subject.issuer] > 1:
            label = f"{subject.issuer} ({subject.uuid})"
        choices.append((str(subject.uuid), label))
    return choices


def _release_holds(request: ActionRequest) -> str:
    count = 0
    for pk in request.chosen_ids:
        if release_hold(pk, origin=request.origin, now=request.now):
            count += 1
    return ngettext("%(count)d hold was released.", "%(count)d holds were released.", count) % {
        "count": count
    }


def _active_hold_choices(request: ActionRequest) -> Choices:
    rows = list_active_holds(now=request.now).filter(subject__in=request.subjects)
    hold_choices = []
    for row in rows:
        hold_choices.append((str(row.pk), row.reason))
    return hold_choices


@sensitive_variables()
def _disclose_held_claims(request: ActionRequest) -> ActionResult:
    subject = uuid.UUID(request.form_data["chosen"])
    claims = disclose_held_claims(request.actor, subject, purpose="HLEGAL", consent=request.consent)
    return build_disclosure_result(claims)


person_sections.register(
    PersonSection(
        name="holds",
        position=60,
        permission="phi_oidc_legal_holds.view_legalhold",
        title=gettext_lazy("Legal holds"),
        columns=(
            gettext_lazy("Case reference"),
            gettext_lazy("Placed (UTC)"),
            gettext_lazy("Until (UTC)"),
            gettext_lazy("Released (UTC)"),
        ),
        build=build_holds,
    )
)
person_actions.register(
    PersonAction(
        name="hold",
        section="holds",
        permission="phi_oidc_legal_holds.add_legalhold",
        title=gettext_lazy("Place a legal hold"),
        description=gettext_lazy("While it is active, no stored data of this person is erased."),
        run=_place_hold,
        choices=_subject_choices,
        form_class=PlaceHoldForm,
    )
)
person_actions.register(
    PersonAction(
        name="release",
        section="holds",
        permission="phi_oidc_legal_holds.change_legalhold",
        title=gettext_lazy("Release legal holds"),
        description=gettext_lazy(
            "The next scrub erases claims past their retention that no other hold keeps."
        ),
        run=_release_holds,
        choices=_active_hold_choices,
        form_class=MultipleChoiceForm,
    )
)
person_actions.register(
    PersonAction(
        name="disclose",
        section="holds",
        permission=DISCLOSE_PERMISSION,
        title=gettext_lazy("View what a legal hold keeps"),
        description=gettext_lazy(
            "The audit log records that you viewed it, for the purpose “Legal”."
        ),
        run=_disclose_held_claims,
        choices=_subject_choices,
        form_class=DiscloseForm,
    )
)
