"""Access, accounting of disclosures and erasure for one person."""

from collections.abc import Mapping
from typing import ClassVar

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig
from ..._internal.officer_groups import OfficerGroup
from ...extensions import disclosure_observers, own_resource_rules
from .declaration import IndividualRightsOptions


class IndividualRightsConfig(FeatureConfig):
    """Access, accounting of disclosures and erasure for one person."""

    default = True
    name = "django_phi_oidc.contrib.individual_rights"
    label = "phi_oidc_individual_rights"
    verbose_name = gettext_lazy("Rights of individuals")
    options = IndividualRightsOptions
    officer_permissions = {  # noqa: RUF012 -- read only, as of Django
        OfficerGroup.PRIVACY_OFFICER: (
            "django_phi_oidc.export_pairwisesubject",
            "phi_oidc_individual_rights.view_accountingcopy",
        ),
    }
    nested_subcommands: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "subject": ("subject_accounting", "subject_data"),
    }

    def ready(self) -> None:
        # It imports models.
        from . import recipients

        super().ready()
        disclosure_observers.register(recipients.remember_recipient)
        own_resource_rules.register(recipients.is_own_resource)
