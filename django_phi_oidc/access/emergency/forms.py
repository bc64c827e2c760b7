"""Forms of emergency access: one that opens it, and one that reviews it."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.text import capfirst
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ..policy import EMERGENCY_PURPOSES, PURPOSES, is_resource_reference
from .models import ALL_RESOURCES, ReviewVerdict

MAX_TEXT_LENGTH = 2000


def get_purpose_label(code: str) -> str:
    """Return what people read of a purpose: HL7's words in their language, or a code that HL7 has not."""
    return capfirst(gettext(PURPOSES[code])) if code in PURPOSES else code


class EmergencyForm(forms.Form):
    """Asks what is to be opened, what for, why, and for how long.

    NOT checked: whether the person may. `open_emergency` refuses, and that belongs into the trail.
    """

    resource = forms.CharField(label=_("Record"), max_length=193, help_text=_("As its page names it: Patient/4711."))
    permissions = forms.MultipleChoiceField(
        label=_("What you need to do"),
        widget=forms.CheckboxSelectMultiple,
        error_messages={"required": _("Choose at least one.")},
    )
    purpose = forms.ChoiceField(
        label=_("Purpose"),
        choices=lambda: [(code, get_purpose_label(code)) for code in EMERGENCY_PURPOSES],
        widget=forms.RadioSelect,
        initial=EMERGENCY_PURPOSES[0],
    )
    reason = forms.CharField(
        label=_("Reason"),
        max_length=MAX_TEXT_LENGTH,
        widget=forms.Textarea(attrs={"rows": 4, "autocomplete": "off"}),
        help_text=_("The privacy officer reads it."),
    )

    def __init__(
        self, *args: Any, permission_labels: Mapping[str, str], max_duration: timedelta, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        permissions: Any = self.fields["permissions"]
        permissions.choices = list(permission_labels.items())
        permissions.initial = list(permission_labels) if len(permission_labels) == 1 else []
        most = max_duration // timedelta(minutes=1)
        self.fields["minutes"] = forms.IntegerField(
            label=_("For how many minutes"), min_value=1, max_value=most, initial=min(most, 60)
        )

    def clean_resource(self) -> str:
        """Refuse what is no resource's name."""
        resource = str(self.cleaned_data["resource"])
        if resource != ALL_RESOURCES and not is_resource_reference(resource):
            raise ValidationError(_("This is not how a record is named."))
        return resource


class EmergencyReviewForm(forms.Form):
    """Asks what the reviewer says."""

    verdict = forms.ChoiceField(label=_("Verdict"), choices=ReviewVerdict.choices, widget=forms.RadioSelect)
    note = forms.CharField(
        label=_("Note"), max_length=MAX_TEXT_LENGTH, required=False, widget=forms.Textarea(attrs={"rows": 4})
    )
