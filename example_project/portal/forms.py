"""The form that asks why somebody's details should be opened."""

from django.utils.html import format_html

from django_phi_oidc.claims import forms

from . import view_models


class PurposeForm(forms.PurposeForm):
    """The app's, in the words of the portal."""

    def get_purpose_label(self, code: str) -> str:
        """Return a purpose as people say it, with a hint where there is one."""
        said = view_models.purpose(code)
        return format_html('{} <span class="soft">{}</span>', said.name, said.hint) if said.hint else said.name
