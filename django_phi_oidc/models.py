"""The models, where Django looks for them."""

# ruff: noqa: PLC0414 -- explicit re-exports
from .access.emergency.models import EmergencyAccess as EmergencyAccess
from .access.models import DisclosureRecipient as DisclosureRecipient
from .anomalies.models import AlertMute as AlertMute
from .anomalies.models import AnomalyMemory as AnomalyMemory
from .anomalies.models import SecurityAlert as SecurityAlert
from .anomalies.models import WatchCursor as WatchCursor
from .audit.log.models import Cosignature as Cosignature
from .audit.log.models import LogWitness as LogWitness
from .audit.models import AuditCheckpoint as AuditCheckpoint
from .audit.models import AuditEvent as AuditEvent
from .audit.models import AuditLeaf as AuditLeaf
from .audit.models import AuditNode as AuditNode
from .audit.models import AuditOutbox as AuditOutbox
from .audit.models import AuditUnsealed as AuditUnsealed
from .audit.models import AuditWitness as AuditWitness
from .audit.models import RecordedConfiguration as RecordedConfiguration
from .audit.models import RefusalCount as RefusalCount
from .audit.models import VerificationRecord as VerificationRecord
from .audit_exports.models import TrailJob as TrailJob
from .claims.models import LegalHold as LegalHold
from .claims.models import StoredClaim as StoredClaim
from .individual_rights.models import AccountingCopy as AccountingCopy
from .officer_admin.models import HourlyCount as HourlyCount
from .replay.models import UsedIdentifier as UsedIdentifier
from .sessions.models import OIDCSession as OIDCSession
from .sessions.models import PendingRevocation as PendingRevocation
from .sessions.models import SessionEndJob as SessionEndJob
from .siem.models import SinkCursor as SinkCursor
from .subjects.models import AccountNotice as AccountNotice
from .subjects.models import ActivationCode as ActivationCode
from .subjects.models import KnownDevice as KnownDevice
from .subjects.models import PairwiseIdentifier as PairwiseIdentifier
from .subjects.models import PairwiseSubject as PairwiseSubject
from .subjects.models import SubjectDigest as SubjectDigest
