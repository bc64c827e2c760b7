"""Django's admin looks for pages here."""

from django.contrib import admin

from .access.admin import EmergencyAccessAdmin
from .audit.admin import AuditCheckpointAdmin, AuditEventAdmin
from .claims.admin import LegalHoldAdmin, StoredClaimAdmin
from .delivery.admin import TrailJobAdmin
from .desk.admin import lay_desk
from .login.admin import lead_to_provider
from .person.admin import add_persons
from .sessions.admin import OIDCSessionAdmin, PendingRevocationAdmin
from .subjects.admin import ActivationCodeAdmin, PairwiseSubjectAdmin
from .watch.admin import AlertMuteAdmin, SecurityAlertAdmin

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

lay_desk(admin.site)
lead_to_provider(admin.site)
add_persons(admin.site)
