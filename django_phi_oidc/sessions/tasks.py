"""Revoke tokens inline (at most `INLINE_SECONDS` per request), otherwise in the periodic sweep.

Requests never publish Celery messages, because publishing blocks while the broker is down.
"""

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction

from .. import conf
from .._internal import clock
from .._internal.periodic_task import periodic_task
from .._internal.sql import is_lock_timeout
from ..audit.events import Origin
from ..audit.outbox import batch_delivery, raise_or_enqueue_alert
from ..claims.retention import lock_subjects_of_users, scrub_inactive_users
from ..errors import Code, KeyRingError
from ..oidc.token import ReceivedToken
from . import expiry, token_revocation
from .lifecycle import KEY_ALERT_RULE, EndedSession, end_sessions
from .models import EndReason, OIDCSession, PendingRevocation

logger = logging.getLogger(__name__)
T = TypeVar("T")

INLINE_SECONDS = 2.0
"""For all tokens of a request together."""
CALL_SECONDS = 8.0
SWEEP_SECONDS = 50.0
_MIN_CALL_SECONDS = 0.05
_MAX_REQUEST_SECONDS = 5.0
"""Longest time between cycling a Django session key and storing it. Longer requests may sign the
user out.
"""


@periodic_task("phi_oidc.sweep_revocations")
def sweep_revocations() -> None:
    """Try all revocations that are due."""
    token_revocation.retry_due(
        clock=clock.now,
        budget_seconds=SWEEP_SECONDS,
        timeout_seconds=CALL_SECONDS,
        give_up_after=conf.revocation_give_up_after(),
    )


@periodic_task("phi_oidc.end_overdue")
def end_expired_sessions() -> int:
    """End and count the sessions past a timeout. The sweep revokes their tokens."""
    idle_timeout = conf.idle_timeout()
    absolute_timeout = conf.absolute_timeout()
    ended = 0
    while True:
        due = expiry.list_due_sessions(
            now=clock.now(), idle_timeout=idle_timeout, absolute_timeout=absolute_timeout
        )
        is_complete = sum(map(len, due.values())) < expiry.DUE_BATCH_SIZE
        postponed = expiry.update_due_times(
            due.pop("", ()), idle_timeout=idle_timeout, absolute_timeout=absolute_timeout
        )
        ended_now = 0
        for reason, pks in due.items():
            ended_now += _end_in_batches(pks, EndReason(reason))
        ended += ended_now
        # Without progress, another transaction locks all of them. The next run tries again.
        if is_complete or not postponed + ended_now:
            return ended


@periodic_task("phi_oidc.check_sessions")
def end_orphaned_sessions() -> int:
    """End and count the live sessions of unusable accounts and without a Django session. The sweep
    revokes.

    A session whose key can't be decrypted because the encryption key is missing is not without a
    Django session.
    This reads all live sessions. It also corrects times that would make them end too late.
    """
    idle_timeout = conf.idle_timeout()
    absolute_timeout = conf.absolute_timeout()
    expiry.limit_future_times(now=clock.now())
    while late := expiry.list_sessions_with_late_due_time(
        idle_timeout=idle_timeout, absolute_timeout=absolute_timeout
    ):
        if not expiry.update_due_times(
            late, idle_timeout=idle_timeout, absolute_timeout=absolute_timeout
        ):
            break
    ended = 0
    while unusable := expiry.list_sessions_of_unusable_accounts():
        ended_now = _end_in_batches(unusable, EndReason.USER_INACTIVE)
        if not ended_now:
            break
        ended += ended_now
    search = expiry.find_orphaned_sessions(wait=_wait_for_requests)
    if count := search.key_missing_count:
        raise_or_enqueue_alert(
            KEY_ALERT_RULE, now=clock.now(), count=count, reason=Code.KEY_MISSING
        )
    return ended + _end_in_batches(search.orphaned, EndReason.SESSION_LOST)


def _end_in_batches(session_ids: Sequence[uuid.UUID], reason: EndReason) -> int:
    size = expiry.BATCH_SIZE
    ended = 0
    for start in range(0, len(session_ids), size):
        ended += _end_batch(session_ids[start : start + size], reason)
    return ended


def _end_batch(session_ids: Sequence[uuid.UUID], reason: EndReason) -> int:
    """End the sessions. If another transaction locks a row of one of them for too long, end the
    others.
    """
    try:
        return len(_end_sessions(session_ids, reason, origin=Origin(), now=clock.now()))
    except OperationalError as error:
        if not is_lock_timeout(error):
            raise
        if len(session_ids) == 1:
            logger.error("Session %s can't be ended: another transaction locks it.", session_ids[0])  # noqa: TRY400
            return 0
        half = len(session_ids) // 2
        return _end_batch(session_ids[:half], reason) + _end_batch(session_ids[half:], reason)


def _end_sessions(
    session_ids: Sequence[uuid.UUID],
    reason: EndReason,
    *,
    origin: Origin,
    now: datetime,
    lease_revocations: bool = False,
) -> list[EndedSession]:
    """End the sessions, and in the same transaction erase all claims of accounts that were found to
    be inactive.

    The accounts were changed without a signal, for example by a bulk update; else their claims
    would already be erased. If the end were committed before the erasure fails, no later run would
    find these users.
    """
    if reason is not EndReason.USER_INACTIVE:
        return end_sessions(
            session_ids, reason, origin=origin, now=now, lease_revocations=lease_revocations
        )
    with transaction.atomic():
        users = set(
            OIDCSession.objects.filter(pk__in=session_ids, user__isnull=False).values_list(
                "user", flat=True
            )
        )
        lock_subjects_of_users(users)
        ended = end_sessions(
            session_ids, reason, origin=origin, now=now, lease_revocations=lease_revocations
        )
        scrub_inactive_users(users, origin=origin, now=now)
    return ended


def _wait_for_requests() -> None:
    time.sleep(_MAX_REQUEST_SECONDS)


def end_session_and_revoke(
    session_id: uuid.UUID,
    reason: EndReason,
    *,
    origin: Origin,
    now: datetime,
    budget_seconds: float = INLINE_SECONDS,
) -> EndedSession | None:
    """End the session, and revoke its tokens as `revoke_after_commit` does. None: it had already
    ended.
    """
    with batch_delivery():
        sessions = _end_sessions(
            [session_id], reason, origin=origin, now=now, lease_revocations=True
        )
        ended = None
        if sessions:
            ended = sessions[0]

        if ended:
            revoke_after_commit(
                ended.revocation_ids,
                leased=ended.leased_revocations,
                budget_seconds=budget_seconds,
            )
    return ended


def revoke_after_commit(
    revocation_ids: Sequence[uuid.UUID],
    *,
    leased: Sequence[PendingRevocation] = (),
    budget_seconds: float = INLINE_SECONDS,
) -> None:
    """After the open transaction, if any, try these revocations in order. The sweep tries those for
    which the budget is too short.

    leased: those of the rows that were created with a lease, in that transaction.
    """
    if not revocation_ids:
        return

    def revoke_inline() -> None:
        give_up_after = conf.revocation_give_up_after()
        token_revocation.attempt_revocations(
            revocation_ids,
            leased=leased,
            now=clock.now(),
            budget_seconds=budget_seconds,
            give_up_after=give_up_after,
        )

    transaction.on_commit(revoke_inline, robust=True)


def revoke_received_tokens(tokens: Sequence[ReceivedToken], *, provider: str) -> None:
    """Queue tokens that no session stores, and try to revoke them before returning.

    If they can't be queued, because the database or a key is unavailable, they are revoked without
    the queue. A token for which that fails stays valid until it expires, and an error is logged.
    """
    try:
        queue = token_revocation.queue_revocations
        pks = retry_on_lost_connection(lambda: queue(tokens, provider=provider, now=clock.now()))
    except (DatabaseError, InterfaceError, KeyRingError):
        logger.exception(
            "The tokens of a refused sign-in can't be queued for revocation; they are revoked now."
        )
        _revoke_without_queue(tokens, provider=provider)
    else:
        revoke_after_commit(pks)


def retry_on_lost_connection(operation: Callable[[], T]) -> T:
    """Return operation(), a single transaction; run it again if the connection to the default
    database was lost.
    """
    try:
        return operation()
    except (OperationalError, InterfaceError):
        if connection.in_atomic_block:
            raise
        connection.close()
        return operation()


def _revoke_without_queue(tokens: Sequence[ReceivedToken], *, provider: str) -> None:
    ends_at = time.monotonic() + INLINE_SECONDS
    for token in tokens:
        seconds_left = max(ends_at - time.monotonic(), _MIN_CALL_SECONDS)
        result = token_revocation.revoke_at_provider(
            token, provider_name=provider, now=clock.now(), timeout_seconds=seconds_left
        )
        if result.error_code:
            logger.error(
                "A token of a refused sign-in is valid and not queued for revocation: %s.",
                result.error_code,
            )
