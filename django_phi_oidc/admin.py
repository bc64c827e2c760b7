"""The ModelAdmin classes, where Django's autodiscovery looks for them."""

# ruff: noqa: PLC0414 -- explicit re-exports
from django.contrib import admin

from .access.emergency.admin import EmergencyAccessAdmin as EmergencyAccessAdmin
from .anomalies.admin import AlertMuteAdmin as AlertMuteAdmin
from .anomalies.admin import SecurityAlertAdmin as SecurityAlertAdmin
from .audit.admin import AuditCheckpointAdmin as AuditCheckpointAdmin
from .audit.admin import AuditEventAdmin as AuditEventAdmin
from .audit_exports.admin import TrailJobAdmin as TrailJobAdmin
from .claims.admin import LegalHoldAdmin as LegalHoldAdmin
from .claims.admin import StoredClaimAdmin as StoredClaimAdmin
from .individual_rights.admin import AccountingCopyAdmin as AccountingCopyAdmin
from .login.admin_site import use_oidc_login
from .officer_admin.person_views import install_person_pages
from .officer_admin.site import install_dashboard
from .sessions.admin import OIDCSessionAdmin as OIDCSessionAdmin
from .sessions.admin import PendingRevocationAdmin as PendingRevocationAdmin
from .subjects.admin import ActivationCodeAdmin as ActivationCodeAdmin
from .subjects.admin import PairwiseSubjectAdmin as PairwiseSubjectAdmin

install_dashboard(admin.site)
use_oidc_login(admin.site)
install_person_pages(admin.site)
