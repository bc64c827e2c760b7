"""Django's admin looks for pages here."""

from .audit.admin import AuditCheckpointAdmin, AuditEventAdmin
from .subjects.admin import PairwiseSubjectAdmin

__all__ = ["AuditCheckpointAdmin", "AuditEventAdmin", "PairwiseSubjectAdmin"]
