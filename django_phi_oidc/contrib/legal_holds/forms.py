"""The part that the forms of legal holds have in common."""

from datetime import datetime
from typing import Any

from django import forms
from django.utils.translation import gettext as _

from ..._internal import clock


class FutureUntilMixin:
    """Refuses a time in the past in the form field `until`."""

    cleaned_data: dict[str, Any]

    def clean_until(self) -> datetime | None:
        until: datetime | None = self.cleaned_data["until"]
        if until is not None and until <= clock.now():
            raise forms.ValidationError(_("This time is in the past."))
        return until
