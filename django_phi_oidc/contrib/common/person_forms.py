"""Forms of the actions on a person. A form offers and accepts only rows of this person."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy

from ... import conf
from .person_pages import ActionForm, Choices


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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not any(claim.label for claim in conf.claims().values()):
            del self.fields["consent"]


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
