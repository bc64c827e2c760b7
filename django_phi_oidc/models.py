"""Django looks for models here."""

from .access.emergency.models import EmergencyAccess
from .anomalies.models import AlertMute, AnomalyMemory, SecurityAlert, WatchCursor
from .audit.models import (
    AuditCheckpoint,
    AuditEvent,
    AuditLeaf,
    AuditNode,
    AuditOutbox,
    AuditUnsealed,
    AuditWitness,
    RefusalCount,
)
from .audit_exports.models import TrailJob
from .claims.models import LegalHold, StoredClaim
from .replay.models import UsedIdentifier
from .sessions.models import OIDCSession, PendingRevocation
from .siem.models import SinkCursor
from .subjects.models import ActivationCode, PairwiseIdentifier, PairwiseSubject, SubjectDigest

__all__ = [
    "ActivationCode",
    "AlertMute",
    "AnomalyMemory",
    "AuditCheckpoint",
    "AuditEvent",
    "AuditLeaf",
    "AuditNode",
    "AuditOutbox",
    "AuditUnsealed",
    "AuditWitness",
    "EmergencyAccess",
    "LegalHold",
    "OIDCSession",
    "PairwiseIdentifier",
    "PairwiseSubject",
    "PendingRevocation",
    "RefusalCount",
    "SecurityAlert",
    "SinkCursor",
    "StoredClaim",
    "SubjectDigest",
    "TrailJob",
    "UsedIdentifier",
    "WatchCursor",
]
