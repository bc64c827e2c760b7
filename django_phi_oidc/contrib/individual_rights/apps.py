"""Access, accounting of disclosures and erasure for one person."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class IndividualRightsConfig(AppConfig):
    """Access, accounting of disclosures and erasure for one person."""

    name = "django_phi_oidc.contrib.individual_rights"
    label = "phi_oidc_individual_rights"
    verbose_name = gettext_lazy("Rights of individuals")
    default_auto_field = "django.db.models.BigAutoField"
