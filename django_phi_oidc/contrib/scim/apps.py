"""Accounts that an identity system manages (SCIM 2.0)."""

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig


class SCIMConfig(FeatureConfig):
    """Accounts that an identity system manages (SCIM 2.0)."""

    default = True
    name = "django_phi_oidc.contrib.scim"
    label = "phi_oidc_scim"
    verbose_name = gettext_lazy("SCIM")
