"""The forms of the actions on a person. A form offers and accepts only rows of this person."""

from collections.abc import Sequence
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy

from ... import conf
from ..._internal.visible_text import validate_visible_text
from ...audit.descriptions import get_purpose_label
from ...audit.purposes import EXPORT_PURPOSES
from .claims_admin import FutureUntilMixin

Choices = Sequence[tuple[str, str]]
REVEAL_REASONS = (
    ("identity_check", gettext_lazy("the identity of the person is verified")),
    ("correction", gettext_lazy("the person asked for a correction")),
    ("complaint", gettext_lazy("a complaint is investigated")),
    ("incident", gettext_lazy("an incident is investigated")),
    ("authority", gettext_lazy("an authority or a court requires it")),
)
"""Why an officer reveals a claim: the `reason` of the event. A fixed list, because the audit log
keeps typed text.
"""


EXPORT_REASONS = (
    ("access_request", gettext_lazy("the person asked for a copy of their data")),
    ("complaint", gettext_lazy("a complaint is investigated")),
    ("incident", gettext_lazy("an incident is investigated")),
    ("authority", gettext_lazy("an authority or a court requires it")),
)
"""Why an officer exports all data of a person, as above."""


class ActionForm(forms.Form):
    """Asks for confirmation only."""

    is_empty = False
    """Whether there is no row to choose."""

    def __init__(self, *args: Any, choices: Choices = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.set_choices(choices)
        if not any(claim.label for claim in conf.claims().values()):
            self.fields.pop("consent", None)

    def set_choices(self, choices: Choices) -> None:
        """Offer these rows."""


class ConsentForm(ActionForm):
    """Asks for the reference to a consent, if a claim with a label is declared.

    NOT checked: the submitted reference. The disclosure refuses an invalid one, so that the audit
    log has the refusal.
    """

    consent = forms.CharField(
        label=gettext_lazy("Consent"),
        max_length=128,
        required=False,
        help_text=gettext_lazy(
            "For substance use disorder records (42 CFR Part 2): the reference of the patient’s "
            "consent or of the court order, without names. It is recorded in the audit log."
        ),
    )
    field_order = ("chosen", "purpose", "reason", "consent")


class MultipleChoiceForm(ActionForm):
    chosen = forms.MultipleChoiceField(
        label=gettext_lazy("Which"), widget=forms.CheckboxSelectMultiple
    )

    def set_choices(self, choices: Choices) -> None:
        field: Any = self.fields["chosen"]
        field.choices = choices
        field.initial = [value for value, _label in choices]
        self.is_empty = not choices


class SingleChoiceForm(ActionForm):
    chosen = forms.ChoiceField(label=gettext_lazy("Which"), widget=forms.RadioSelect)

    def set_choices(self, choices: Choices) -> None:
        field: Any = self.fields["chosen"]
        field.choices = choices

        if choices:
            field.initial = choices[0][0]
        else:
            field.initial = None

        self.is_empty = not choices


class RevealForm(MultipleChoiceForm, ConsentForm):
    """Asks which claims, for which purpose, and why; no claim is selected initially.

    It offers the declared purposes of these claims. NOT checked: the submitted purpose. `reveal`
    refuses any other, so that the audit log has the refusal.
    """

    purpose = forms.CharField(label=gettext_lazy("Purpose"), widget=forms.Select)
    reason = forms.ChoiceField(
        label=gettext_lazy("Reason"), choices=REVEAL_REASONS, widget=forms.RadioSelect
    )

    def set_choices(self, choices: Choices) -> None:
        super().set_choices(choices)
        self.fields["chosen"].initial = []
        declared = conf.claims()
        codes = sorted({declared[name].purpose for name, _label in choices if name in declared})
        widget: Any = self.fields["purpose"].widget
        widget.choices = [("", "---------"), *((code, get_purpose_label(code)) for code in codes)]


class DiscloseForm(SingleChoiceForm, ConsentForm):
    """Asks for the subject."""


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
