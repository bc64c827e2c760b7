"""Sign-ins whose portal was killed during the callback: tokens may exist that this app has never
stored.

The `state` of each callback is marked as used before the token request. A sign-in that succeeds has
a session whose id is derived from that mark, which takes no statement. All other callbacks say that
they have ended. What remains when the mark expires was interrupted.
"""

import hashlib
import logging
import uuid
from datetime import datetime
from typing import Any

from django.db import DatabaseError, InterfaceError, router, transaction

from .._internal import metrics
from .._internal.sql import update
from ..audit.events import Action, NewEvent, Origin
from ..audit.outbox import enqueue_many
from ..replay.cache import compute_digest
from ..replay.models import UsedIdentifier
from ..sessions.models import OIDCSession

logger = logging.getLogger("django_phi_oidc.login")
INTERRUPTED = "interrupted"
STATE_KIND = "state"
_ENDED_KIND = "ended_state"
_BATCH_SIZE = 1000


def derive_session_id(state: str) -> uuid.UUID:
    """Return the id of the session that the sign-in with this state starts."""
    return _derive_session_id(compute_digest(STATE_KIND, state))


def mark_callback_ended(state: str) -> None:
    """State that a callback which started no session has ended. A failure is logged: then it counts
    as interrupted.
    """
    using = router.db_for_write(UsedIdentifier)
    digest = compute_digest(STATE_KIND, state)
    try:
        # A crash that loses the mark makes it count as interrupted, too.
        update(UsedIdentifier, digest, using=using, is_durable=False, kind=_ENDED_KIND)
    except (DatabaseError, InterfaceError) as error:
        logger.warning("The end of a callback could not be stored: %s", type(error).__name__)


def report_interrupted_sign_ins(*, now: datetime) -> int:
    """Record how many sign-ins with expired states were interrupted, delete these states, and
    return the number.

    Each is reported once: several workers share the work, and the event is written with the
    deletion.
    """
    expired = UsedIdentifier.objects.filter(kind=STATE_KIND, until__lt=now).order_by("until")
    interrupted_count = 0
    is_complete = False
    while not is_complete:
        with transaction.atomic(using=router.db_for_write(UsedIdentifier)):
            digests = list(
                expired.select_for_update(skip_locked=True).values_list("digest", flat=True)[
                    :_BATCH_SIZE
                ]
            )
            session_ids = {_derive_session_id(digest) for digest in digests}
            count = len(digests) - OIDCSession.objects.filter(pk__in=session_ids).count()
            if count:
                detail: dict[str, Any] = {"stage": "callback", "count": count}
                enqueue_many(
                    [
                        NewEvent(
                            Action.LOGIN_REFUSED,
                            Origin(),
                            now,
                            outcome="error",
                            reason=INTERRUPTED,
                            detail=detail,
                        )
                    ]
                )
            UsedIdentifier.objects.filter(digest__in=digests).delete()
        interrupted_count += count
        is_complete = len(digests) < _BATCH_SIZE
    if interrupted_count:
        logger.error(
            "%d sign-ins were interrupted: their tokens may be valid until they expire.",
            interrupted_count,
        )
        for _ in range(interrupted_count):
            metrics.increment(
                metrics.COMPLETED_SIGN_INS,
                provider="",
                stage="callback",
                outcome="error",
                reason=INTERRUPTED,
            )
    return interrupted_count


def _derive_session_id(digest: str) -> uuid.UUID:
    return uuid.UUID(bytes=hashlib.sha256(digest.encode()).digest()[:16], version=4)
