"""The form that asks which claims of a person to reveal."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy

from ... import conf
from ...audit.descriptions import get_purpose_label
from ..common.person_forms import ConsentForm, MultipleChoiceForm
from ..common.person_pages import Choices

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
        purposes = set()
        for name, _label in choices:
            if name in declared:
                purposes.add(declared[name].purpose)
        purpose_choices = [("", "---------")]
        for code in sorted(purposes):
            purpose_choices.append((code, get_purpose_label(code)))
        widget: Any = self.fields["purpose"].widget
        widget.choices = purpose_choices
