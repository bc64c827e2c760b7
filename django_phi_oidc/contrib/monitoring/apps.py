"""Anomaly rules, alerts, metrics and health."""

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig


class MonitoringConfig(FeatureConfig):
    """Anomaly rules, alerts, metrics and health."""

    default = True
    name = "django_phi_oidc.contrib.monitoring"
    label = "phi_oidc_monitoring"
    verbose_name = gettext_lazy("Monitoring")
