"""Set-up of a project, and migration from other libraries."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class AdoptionConfig(AppConfig):
    """Set-up of a project, and migration from other libraries."""

    name = "django_phi_oidc.contrib.adoption"
    label = "phi_oidc_adoption"
    verbose_name = gettext_lazy("Adoption")
    default_auto_field = "django.db.models.BigAutoField"
