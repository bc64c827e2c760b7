"""The append-only audit log, which proves itself (RFC 6962)."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class AuditConfig(AppConfig):
    """The append-only audit log, which proves itself (RFC 6962)."""

    name = "django_phi_oidc.audit"
    label = "phi_oidc_audit"
    verbose_name = gettext_lazy("Audit log")
    default_auto_field = "django.db.models.BigAutoField"
