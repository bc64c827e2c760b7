"""Access, accounting of disclosures and erasure for one person."""

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig


class IndividualRightsConfig(FeatureConfig):
    """Access, accounting of disclosures and erasure for one person."""

    default = True
    name = "django_phi_oidc.contrib.individual_rights"
    label = "phi_oidc_individual_rights"
    verbose_name = gettext_lazy("Rights of individuals")
