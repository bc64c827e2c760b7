"""Pages of the admin for officers and the help desk."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class OfficerAdminConfig(AppConfig):
    """Pages of the admin for officers and the help desk."""

    name = "django_phi_oidc.contrib.officer_admin"
    label = "phi_oidc_officer_admin"
    verbose_name = gettext_lazy("Overview")
    default_auto_field = "django.db.models.BigAutoField"
