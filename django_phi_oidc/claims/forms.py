"""A form that asks why something should be opened."""

from collections.abc import Iterable
from typing import Any

from django import forms
from django.core.validators import MaxLengthValidator
from django.utils.translation import gettext_lazy as _

from ..access.emergency.forms import get_purpose_label
from ..access.policy import PATIENT_REQUEST
from ..config.claims import ClaimDeclaration


class PurposeForm(forms.Form):
    """Offers the purposes that these claims are declared for; first, for a person's own claims, their own request.

    NOT checked: whether a purpose is one of those. `reveal` refuses another, and that belongs into the trail.
    """

    purpose = forms.CharField(
        label=_("Purpose"),
        # No max_length: radio buttons would bear it.
        validators=[MaxLengthValidator(32)],
        widget=forms.RadioSelect,
        error_messages={"required": _("Choose a purpose first.")},
    )

    def __init__(self, *args: Any, claims: Iterable[ClaimDeclaration], is_own: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        codes = [*([PATIENT_REQUEST] if is_own else []), *(claim.purpose for claim in claims)]
        choices = [(code, self.get_purpose_label(code)) for code in dict.fromkeys(codes)]
        widget = self.fields["purpose"].widget
        widget.choices = choices

    def get_purpose_label(self, code: str) -> str:
        """Return what people read of a purpose: HL7's words, unless a project has better ones."""
        return get_purpose_label(code)
