"""Access tokens at the portal's own APIs."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class APIsConfig(AppConfig):
    """Access tokens at the portal's own APIs."""

    name = "django_phi_oidc.contrib.apis"
    label = "phi_oidc_apis"
    verbose_name = gettext_lazy("Access tokens")
    default_auto_field = "django.db.models.BigAutoField"
