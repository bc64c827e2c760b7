"""Forms that open and review emergency access."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from ...access.policy import is_resource_reference
from ...audit.descriptions import get_purpose_label
from ...audit.purposes import EMERGENCY_PURPOSES
from ..common.visible_text import validate_visible_text
from .models import ALL_RESOURCES, ReviewVerdict

MAX_TEXT_LENGTH = 2000


class EmergencyForm(forms.Form):
    """NOT checked: whether the person may open it. `open_emergency` refuses that, and records the
    refusal.
    """

    resource = forms.CharField(
        label=_("Record"),
        max_length=193,
        help_text=_("As shown on its page, for example Patient/4711."),
    )
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
        validators=[validate_visible_text],
        widget=forms.Textarea(attrs={"rows": 4, "autocomplete": "off"}),
        help_text=_("The privacy officer will read this."),
    )

    def __init__(
        self, *args: Any, permission_labels: Mapping[str, str], max_duration: timedelta, **rest: Any
    ) -> None:
        super().__init__(*args, **rest)
        permissions: Any = self.fields["permissions"]
        permissions.choices = list(permission_labels.items())

        if len(permission_labels) == 1:
            permissions.initial = list(permission_labels)
        else:
            permissions.initial = []

        longest = max_duration // timedelta(minutes=1)
        self.fields["minutes"] = forms.IntegerField(
            label=_("Duration in minutes"), min_value=1, max_value=longest, initial=min(longest, 60)
        )

    def clean_resource(self) -> str:
        resource = str(self.cleaned_data["resource"])
        if resource != ALL_RESOURCES and not is_resource_reference(resource):
            raise ValidationError(_("Enter a record as Type/id."))
        return resource


class EmergencyReviewForm(forms.Form):
    """Verdict and note of a review."""

    verdict = forms.ChoiceField(
        label=_("Verdict"), choices=ReviewVerdict.choices, widget=forms.RadioSelect
    )
    note = forms.CharField(
        label=_("Note"),
        max_length=MAX_TEXT_LENGTH,
        required=False,
        widget=forms.Textarea(attrs={"rows": 4}),
        help_text=_("Optional. Stored encrypted, and not written to the audit log."),
    )
