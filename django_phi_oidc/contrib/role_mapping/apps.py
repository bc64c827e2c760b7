"""Roles of accounts by the claims of a provider."""

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig
from ...extensions import role_sources
from .declaration import RoleMappingOptions


class RoleMappingConfig(FeatureConfig):
    """Roles of accounts by the claims of a provider."""

    default = True
    name = "django_phi_oidc.contrib.role_mapping"
    label = "phi_oidc_role_mapping"
    verbose_name = gettext_lazy("Roles")
    options = RoleMappingOptions
    subcommands = ("roles",)

    def ready(self) -> None:
        # It imports models.
        from .role_source import role_rules

        super().ready()
        role_sources.register(role_rules)
