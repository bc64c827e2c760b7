"""Accounts that an identity system manages (SCIM 2.0)."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class SCIMConfig(AppConfig):
    """Accounts that an identity system manages (SCIM 2.0)."""

    name = "django_phi_oidc.contrib.scim"
    label = "phi_oidc_scim"
    verbose_name = gettext_lazy("SCIM")
    default_auto_field = "django.db.models.BigAutoField"
