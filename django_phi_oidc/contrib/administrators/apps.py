"""Access of accounts to the admin, and the groups of the officers."""

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig


class AdministratorsConfig(FeatureConfig):
    """Access of accounts to the admin, and the groups of the officers."""

    default = True
    name = "django_phi_oidc.contrib.administrators"
    label = "phi_oidc_administrators"
    verbose_name = gettext_lazy("Administrators")
    subcommands = ("admin", "groups")
