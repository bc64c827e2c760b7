"""What each act asks before it is done. A form offers what is this person's alone, and takes nothing else."""

from collections.abc import Sequence
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import conf
from .._internal import clock
from ..access.emergency.forms import get_purpose_label

Choices = Sequence[tuple[str, str]]
REVEAL_REASONS = (
    ("identity_check", gettext_lazy("to make sure that this is the person")),
    ("correction", gettext_lazy("the person asked for a correction")),
    ("complaint", gettext_lazy("a complaint is looked into")),
    ("incident", gettext_lazy("an incident is looked into")),
    ("authority", gettext_lazy("an authority or a court asked for it")),
)
"""Why an officer reveals a claim: the event's `reason`. A list, for what is typed would be in the trail for ever."""


class ActionForm(forms.Form):
    """Asks nothing but whether it is meant."""

    is_empty = False
    """Whether there is nothing that this could be done to."""

    def __init__(self, *args: Any, choices: Choices = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.set_choices(choices)

    def set_choices(self, choices: Choices) -> None:
        """Let these be chosen."""


class MultipleChoiceForm(ActionForm):
    """Asks which, all of them being chosen at first."""

    chosen = forms.MultipleChoiceField(label=gettext_lazy("Which"), widget=forms.CheckboxSelectMultiple)

    def set_choices(self, choices: Choices) -> None:
        field: Any = self.fields["chosen"]
        field.choices, field.initial = choices, [value for value, _label in choices]
        self.is_empty = not choices


class SingleChoiceForm(ActionForm):
    """Asks which one."""

    chosen = forms.ChoiceField(label=gettext_lazy("Which"), widget=forms.RadioSelect)

    def set_choices(self, choices: Choices) -> None:
        field: Any = self.fields["chosen"]
        field.choices, field.initial = choices, choices[0][0] if choices else None
        self.is_empty = not choices


class RevealForm(MultipleChoiceForm):
    """Asks which claims, for what, and why; nothing is chosen at first.

    It offers the purposes that these are declared for. NOT checked: whether the one that came is among them: `reveal`
    refuses another, and that belongs into the trail.
    """

    purpose = forms.CharField(label=gettext_lazy("Purpose"), widget=forms.Select)
    reason = forms.ChoiceField(label=gettext_lazy("Reason"), choices=REVEAL_REASONS, widget=forms.RadioSelect)

    def set_choices(self, choices: Choices) -> None:
        super().set_choices(choices)
        self.fields["chosen"].initial = []
        declared = conf.claims()
        codes = sorted({declared[name].purpose for name, _label in choices if name in declared})
        widget: Any = self.fields["purpose"].widget
        widget.choices = [("", "---------"), *((code, get_purpose_label(code)) for code in codes)]


class PlaceHoldForm(SingleChoiceForm):
    """Asks whom, by the subject, for what matter, and until when."""

    reason = forms.CharField(
        label=gettext_lazy("Matter"),
        max_length=255,
        help_text=gettext_lazy("For people: a reference of the matter. It is not in the trail."),
    )
    until = forms.DateTimeField(
        label=gettext_lazy("Until"),
        required=False,
        help_text=gettext_lazy("As in 2027-11-24 16:05, in this site’s time zone. Empty: until it is released."),
    )

    def clean_until(self) -> Any:
        """Refuse a hold that would be over."""
        until = self.cleaned_data["until"]
        if until is not None and until <= clock.now():
            raise ValidationError(_("That time is over."))
        return until
