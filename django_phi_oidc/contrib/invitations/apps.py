"""Activation codes for accounts without a subject."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class InvitationsConfig(AppConfig):
    """Activation codes for accounts without a subject."""

    name = "django_phi_oidc.contrib.invitations"
    label = "phi_oidc_invitations"
    verbose_name = gettext_lazy("Activation codes")
    default_auto_field = "django.db.models.BigAutoField"
