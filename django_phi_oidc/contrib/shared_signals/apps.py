"""Security events of a provider (SSF 1.0)."""

from collections.abc import Mapping
from typing import ClassVar

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig
from ...extensions import sign_in_demands, sign_in_observers
from .declaration import SignalsDeclaration


class SharedSignalsConfig(FeatureConfig):
    """Security events of a provider (SSF 1.0)."""

    default = True
    name = "django_phi_oidc.contrib.shared_signals"
    label = "phi_oidc_shared_signals"
    verbose_name = gettext_lazy("Shared Signals")
    provider_option = ("signals", SignalsDeclaration)
    beat: ClassVar[Mapping[str, float]] = {
        "phi_oidc.poll_signals": 1,
    }
    subcommands = ("signals",)

    def ready(self) -> None:
        # This module imports models.
        from .sign_in_demands import DEMAND_OBSERVER, is_new_sign_in_demanded

        super().ready()
        sign_in_demands.register(is_new_sign_in_demanded)
        sign_in_observers.register(DEMAND_OBSERVER)
