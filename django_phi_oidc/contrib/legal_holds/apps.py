"""Legal holds, which keep claims from erasure."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class LegalHoldsConfig(AppConfig):
    """Legal holds, which keep claims from erasure."""

    name = "django_phi_oidc.contrib.legal_holds"
    label = "phi_oidc_legal_holds"
    verbose_name = gettext_lazy("Legal holds")
    default_auto_field = "django.db.models.BigAutoField"
