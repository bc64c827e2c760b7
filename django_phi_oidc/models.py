"""Django looks for models here."""

from .access.models import EmergencyAccess
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
from .claims.models import LegalHold, StoredClaim
from .delivery.models import SinkCursor, TrailJob
from .replay.models import SpentValue
from .sessions.models import OIDCSession, PendingRevocation
from .subjects.models import ActivationCode, PairwiseIdentifier, PairwiseSubject, SubjectDigest
from .watch.models import AlertMute, AnomalyMemory, SecurityAlert, WatchCursor

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
    "SpentValue",
    "StoredClaim",
    "SubjectDigest",
    "TrailJob",
    "WatchCursor",
]
