"""Anomaly rules, alerts, metrics and health."""

from collections.abc import Mapping
from importlib import import_module
from typing import ClassVar

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig
from ..._internal.officer_groups import OfficerGroup
from ...extensions import event_readers
from .declaration import MonitoringOptions


class MonitoringConfig(FeatureConfig):
    """Anomaly rules, alerts, metrics and health."""

    default = True
    name = "django_phi_oidc.contrib.monitoring"
    label = "phi_oidc_monitoring"
    verbose_name = gettext_lazy("Monitoring")
    options = MonitoringOptions
    officer_permissions = {  # noqa: RUF012 -- read only, as of Django
        OfficerGroup.PRIVACY_OFFICER: ("phi_oidc_monitoring.view_securityalert",),
        OfficerGroup.SECURITY_OFFICER: (
            "phi_oidc_monitoring.view_securityalert",
            "phi_oidc_monitoring.acknowledge_securityalert",
            "phi_oidc_monitoring.view_alertmute",
            "phi_oidc_monitoring.add_alertmute",
            "phi_oidc_monitoring.change_alertmute",
        ),
    }
    beat: ClassVar[Mapping[str, float]] = {
        "phi_oidc.watch": 1,
        "phi_oidc.watch_providers": 60,
    }

    def ready(self) -> None:
        from .rule_reader import RULE_READER

        super().ready()
        event_readers.register(RULE_READER)
        # Attaches the sinks.
        import_module(f"{self.name}.setup")
