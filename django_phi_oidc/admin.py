"""Django's admin looks for pages here."""

from django.contrib import admin

from .audit.admin import AuditCheckpointAdmin, AuditEventAdmin
from .login.admin import lead_to_provider
from .sessions.admin import OIDCSessionAdmin, PendingRevocationAdmin
from .subjects.admin import PairwiseSubjectAdmin

__all__ = [
    "AuditCheckpointAdmin",
    "AuditEventAdmin",
    "OIDCSessionAdmin",
    "PairwiseSubjectAdmin",
    "PendingRevocationAdmin",
]

lead_to_provider(admin.site)
