"""Emergency access to records, and its review."""

from collections.abc import Mapping
from typing import ClassVar

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig
from ..._internal.officer_groups import OfficerGroup
from ...extensions import access_overrides, event_queues, sign_in_observers
from .declaration import EmergencyOptions


class EmergencyConfig(FeatureConfig):
    """Emergency access to records, and its review."""

    default = True
    name = "django_phi_oidc.contrib.emergency"
    label = "phi_oidc_emergency"
    verbose_name = gettext_lazy("Emergency access")
    options = EmergencyOptions
    officer_permissions = {  # noqa: RUF012 -- read only, as of Django
        OfficerGroup.PRIVACY_OFFICER: (
            "phi_oidc_emergency.view_emergencyaccess",
            "phi_oidc_emergency.review_emergencyaccess",
        ),
        OfficerGroup.SECURITY_OFFICER: ("phi_oidc_emergency.view_emergencyaccess",),
    }
    beat: ClassVar[Mapping[str, float]] = {
        "phi_oidc.tend_emergencies": 1,
    }

    def ready(self) -> None:
        # These modules import models.
        from ..common.personal_data_sources import personal_data_sources
        from .access_override import EMERGENCY_OVERRIDES, SPOOL_QUEUE
        from .emergency_assurance import OFFERED_ACR_OBSERVER
        from .personal_data import EMERGENCY_DATA

        super().ready()
        access_overrides.register(EMERGENCY_OVERRIDES)
        event_queues.register(SPOOL_QUEUE)
        personal_data_sources.register(EMERGENCY_DATA)
        sign_in_observers.register(OFFERED_ACR_OBSERVER)
