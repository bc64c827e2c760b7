"""Delivery of events to a SIEM."""

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig


class SIEMConfig(FeatureConfig):
    """Delivery of events to a SIEM."""

    default = True
    name = "django_phi_oidc.contrib.siem"
    label = "phi_oidc_siem"
    verbose_name = gettext_lazy("Delivery of the audit log")
