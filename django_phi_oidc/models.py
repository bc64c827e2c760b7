"""The models, where Django looks for them."""

# ruff: noqa: PLC0414 -- explicit re-exports
from .claims.models import StoredClaim as StoredClaim
from .replay.models import UsedIdentifier as UsedIdentifier
from .sessions.models import OIDCSession as OIDCSession
from .sessions.models import PendingRevocation as PendingRevocation
from .subjects.models import PairwiseIdentifier as PairwiseIdentifier
from .subjects.models import PairwiseSubject as PairwiseSubject
from .subjects.models import SubjectDigest as SubjectDigest
