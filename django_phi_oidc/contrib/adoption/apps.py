"""Set-up of a project, and migration from other libraries."""

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig


class AdoptionConfig(FeatureConfig):
    """Set-up of a project, and migration from other libraries."""

    default = True
    name = "django_phi_oidc.contrib.adoption"
    label = "phi_oidc_adoption"
    verbose_name = gettext_lazy("Adoption")
    requires = ("django_phi_oidc.contrib.doctor",)
    subcommands = (
        "init",
        "migrate_from",
    )
