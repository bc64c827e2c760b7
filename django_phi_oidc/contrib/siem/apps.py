"""Delivery of events to a SIEM."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class SIEMConfig(AppConfig):
    """Delivery of events to a SIEM."""

    name = "django_phi_oidc.contrib.siem"
    label = "phi_oidc_siem"
    verbose_name = gettext_lazy("Delivery of the audit log")
    default_auto_field = "django.db.models.BigAutoField"
