"""The pages of "Your access" as JSON."""

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig


class AccountAPIConfig(FeatureConfig):
    """The pages of "Your access" as JSON, for a portal with one page."""

    default = True
    name = "django_phi_oidc.contrib.account_api"
    label = "phi_oidc_account_api"
    verbose_name = gettext_lazy("Your access as JSON")
    requires = (
        "django_phi_oidc.contrib.individual_rights",
        "django_phi_oidc.contrib.rest_framework",
    )
