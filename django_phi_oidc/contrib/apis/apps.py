"""Access tokens at the portal's own APIs."""

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig


class APIsConfig(FeatureConfig):
    """Access tokens at the portal's own APIs."""

    default = True
    name = "django_phi_oidc.contrib.apis"
    label = "phi_oidc_apis"
    verbose_name = gettext_lazy("Access tokens")
