"""Django looks for models here."""

from .audit.models import AuditEvent, AuditOutbox
from .claims.models import StoredClaim
from .replay.models import SpentValue
from .sessions.models import OIDCSession, PendingRevocation
from .subjects.models import PairwiseIdentifier, PairwiseSubject, SubjectDigest

__all__ = [
    "AuditEvent",
    "AuditOutbox",
    "OIDCSession",
    "PairwiseIdentifier",
    "PairwiseSubject",
    "PendingRevocation",
    "SpentValue",
    "StoredClaim",
    "SubjectDigest",
]
