"""The append-only audit log, which proves itself (RFC 6962)."""

from django.utils.translation import gettext_lazy

from .._internal.app_configs import FeatureConfig


class AuditConfig(FeatureConfig):
    """The append-only audit log, which proves itself (RFC 6962)."""

    default = True
    name = "django_phi_oidc.audit"
    label = "phi_oidc_audit"
    verbose_name = gettext_lazy("Audit log")
