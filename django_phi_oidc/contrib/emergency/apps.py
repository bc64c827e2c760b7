"""Emergency access to records, and its review."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class EmergencyConfig(AppConfig):
    """Emergency access to records, and its review."""

    name = "django_phi_oidc.contrib.emergency"
    label = "phi_oidc_emergency"
    verbose_name = gettext_lazy("Emergency access")
    default_auto_field = "django.db.models.BigAutoField"
