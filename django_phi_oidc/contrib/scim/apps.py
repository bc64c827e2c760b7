"""Accounts that an identity system manages (SCIM 2.0)."""

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig
from ..._internal.officer_groups import OfficerGroup
from .declaration import SCIMDeclaration


class SCIMConfig(FeatureConfig):
    """Accounts that an identity system manages (SCIM 2.0)."""

    default = True
    name = "django_phi_oidc.contrib.scim"
    label = "phi_oidc_scim"
    verbose_name = gettext_lazy("SCIM")
    provider_option = ("scim", SCIMDeclaration)
    officer_permissions = {  # noqa: RUF012 -- read only, as of Django
        OfficerGroup.SECURITY_OFFICER: (
            "phi_oidc_scim.view_scimclient",
            "phi_oidc_scim.manage_scimclient",
        ),
    }
    subcommands = ("scim",)

    requires = ("django_phi_oidc.contrib.role_mapping",)

    def ready(self) -> None:
        from ..common.personal_data_sources import personal_data_sources
        from ..role_mapping.claim_sources import claim_sources
        from . import receivers  # noqa: F401 -- connects them
        from .memberships import group_claim_source
        from .personal_data import PROVISIONED_DATA

        personal_data_sources.register(PROVISIONED_DATA)
        super().ready()
        claim_sources.register(group_claim_source)
