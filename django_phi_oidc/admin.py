"""Django's admin looks for pages here."""

from django.contrib import admin

from .access.emergency.admin import EmergencyAccessAdmin
from .anomalies.admin import AlertMuteAdmin, SecurityAlertAdmin
from .audit.admin import AuditCheckpointAdmin, AuditEventAdmin
from .audit_exports.admin import TrailJobAdmin
from .claims.admin import LegalHoldAdmin, StoredClaimAdmin
from .login.admin_site import use_oidc_login
from .officer_admin.person_views import install_person_pages
from .officer_admin.site import install_dashboard
from .sessions.admin import OIDCSessionAdmin, PendingRevocationAdmin
from .subjects.admin import ActivationCodeAdmin, PairwiseSubjectAdmin

__all__ = [
    "ActivationCodeAdmin",
    "AlertMuteAdmin",
    "AuditCheckpointAdmin",
    "AuditEventAdmin",
    "EmergencyAccessAdmin",
    "LegalHoldAdmin",
    "OIDCSessionAdmin",
    "PairwiseSubjectAdmin",
    "PendingRevocationAdmin",
    "SecurityAlertAdmin",
    "StoredClaimAdmin",
    "TrailJobAdmin",
]

install_dashboard(admin.site)
use_oidc_login(admin.site)
install_person_pages(admin.site)
