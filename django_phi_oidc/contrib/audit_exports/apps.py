"""Exports of many events, and their verification, as jobs."""

from collections.abc import Mapping
from typing import ClassVar

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig
from ...extensions import AuditJobPages, audit_job_pages
from .declaration import AuditExportsOptions


class AuditExportsConfig(FeatureConfig):
    """Exports of many events, and their verification, as jobs."""

    default = True
    name = "django_phi_oidc.contrib.audit_exports"
    label = "phi_oidc_audit_exports"
    verbose_name = gettext_lazy("Exports of the audit log")
    beat: ClassVar[Mapping[str, float]] = {
        "phi_oidc.work_trail_jobs": 1,
    }
    options = AuditExportsOptions

    def ready(self) -> None:
        super().ready()
        audit_job_pages.register(
            AuditJobPages(
                jobs="admin:phi_oidc_audit_exports_trailjob_changelist",
                export="admin:phi_oidc_audit_exports_trailjob_export",
                verify="admin:phi_oidc_audit_exports_trailjob_verify",
                verify_file="admin:phi_oidc_audit_exports_trailjob_file",
            )
        )
