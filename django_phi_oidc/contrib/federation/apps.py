"""Trust chains of OpenID Federation 1.0."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class FederationConfig(AppConfig):
    """Trust chains of OpenID Federation 1.0."""

    name = "django_phi_oidc.contrib.federation"
    label = "phi_oidc_federation"
    verbose_name = gettext_lazy("OpenID Federation")
    default_auto_field = "django.db.models.BigAutoField"
