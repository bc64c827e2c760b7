"""The form that asks for the purpose before details are shown."""

from django.utils.html import format_html

from django_phi_oidc.claims import forms

from . import view_models


class PurposeForm(forms.PurposeForm):
    """The form of django_phi_oidc with the portal's labels."""

    def get_purpose_label(self, code: str) -> str:
        """Return the name of the purpose, with its hint."""
        purpose = view_models.get_purpose(code)
        return (
            format_html('{} <span class="soft">{}</span>', purpose.name, purpose.hint) if purpose.hint else purpose.name
        )
