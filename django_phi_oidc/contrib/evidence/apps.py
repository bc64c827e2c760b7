"""Signed evidence for auditors."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class EvidenceConfig(AppConfig):
    """Signed evidence for auditors."""

    name = "django_phi_oidc.contrib.evidence"
    label = "phi_oidc_evidence"
    verbose_name = gettext_lazy("Evidence")
    default_auto_field = "django.db.models.BigAutoField"
