"""Emergency access to records, and its review."""

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig


class EmergencyConfig(FeatureConfig):
    """Emergency access to records, and its review."""

    default = True
    name = "django_phi_oidc.contrib.emergency"
    label = "phi_oidc_emergency"
    verbose_name = gettext_lazy("Emergency access")
