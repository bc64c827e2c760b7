"""The form that asks for the purpose of a disclosure."""

from collections.abc import Iterable
from typing import Any

from django import forms
from django.core.validators import MaxLengthValidator
from django.utils.translation import gettext_lazy as _

from ..audit.descriptions import get_purpose_label
from ..audit.purposes import PATIENT_REQUEST
from ..config.claims import ClaimDeclaration


class PurposeForm(forms.Form):
    """Offer the declared purposes of these claims; for the person's own claims, first the person's
    own request.

    NOT checked: whether the purpose is one of them. `reveal` refuses others, and records the
    refusal.
    """

    purpose = forms.CharField(
        label=_("Purpose"),
        # Not max_length, which would add an attribute to each radio button.
        validators=[MaxLengthValidator(32)],
        widget=forms.RadioSelect,
        error_messages={"required": _("Choose a purpose first.")},
    )

    def __init__(
        self, *args: Any, claims: Iterable[ClaimDeclaration], is_own: bool, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        codes = []
        if is_own:
            codes.append(PATIENT_REQUEST)
        for claim in claims:
            codes.append(claim.purpose)

        choices = []
        for code in dict.fromkeys(codes):
            choices.append((code, self.get_purpose_label(code)))
        self.fields["purpose"].widget.choices = choices

    def get_purpose_label(self, code: str) -> str:
        """Return the label of a purpose. Override it to replace HL7's wording."""
        return get_purpose_label(code)
