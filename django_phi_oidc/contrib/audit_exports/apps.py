"""Exports of many events, and their verification, as jobs."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class AuditExportsConfig(AppConfig):
    """Exports of many events, and their verification, as jobs."""

    name = "django_phi_oidc.contrib.audit_exports"
    label = "phi_oidc_audit_exports"
    verbose_name = gettext_lazy("Exports of the audit log")
    default_auto_field = "django.db.models.BigAutoField"
