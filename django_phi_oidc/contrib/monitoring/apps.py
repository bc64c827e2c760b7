"""Anomaly rules, alerts, metrics and health."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class MonitoringConfig(AppConfig):
    """Anomaly rules, alerts, metrics and health."""

    name = "django_phi_oidc.contrib.monitoring"
    label = "phi_oidc_monitoring"
    verbose_name = gettext_lazy("Monitoring")
    default_auto_field = "django.db.models.BigAutoField"
