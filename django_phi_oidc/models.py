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
from .delivery.models import SinkCursor
from .replay.models import SpentValue
from .sessions.models import OIDCSession, PendingRevocation
from .subjects.models import ActivationCode, PairwiseIdentifier, PairwiseSubject, SubjectDigest

__all__ = [
    "ActivationCode",
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
    "SinkCursor",
    "SpentValue",
    "StoredClaim",
    "SubjectDigest",
]
