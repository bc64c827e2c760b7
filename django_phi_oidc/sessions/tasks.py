"""Tokens die: at once, within the budget of a request, or by the sweep. No request sends a message: brokers hang."""

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from celery import shared_task
from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction

from .. import conf
from .._internal import clock
from ..audit.events import Origin
from ..audit.outbox import batch_delivery
from ..claims.retention import scrub_inactive_users
from ..errors import KeyRingError
from ..oidc.token import ReceivedToken
from . import expiry, token_revocation
from .lifecycle import EndedSession, end_session, end_sessions
from .models import EndReason, OIDCSession

logger = logging.getLogger(__name__)
T = TypeVar("T")

INLINE_SECONDS = 2.0
"""For all tokens of a request together."""
CALL_SECONDS = 8.0
SWEEP_SECONDS = 50.0
_MIN_CALL_SECONDS = 0.05
_MAX_REQUEST_SECONDS = 5.0
"""What a request takes, between its cycling a Django session's key and its end; a longer one signs a person out."""


@shared_task(name="phi_oidc.sweep_revocations", ignore_result=True, acks_late=True)
def sweep_revocations() -> None:
    """Try all revocations that are due."""
    token_revocation.retry_due(
        clock=clock.now,
        budget_seconds=SWEEP_SECONDS,
        timeout_seconds=CALL_SECONDS,
        give_up_after=conf.revocation_give_up_after(),
    )


@shared_task(name="phi_oidc.end_overdue", ignore_result=True, acks_late=True)
def end_expired_sessions() -> int:
    """End each session that is past its limits, of nobody any more, or without a Django session; return how many.

    Their tokens are left to the sweep.
    """
    idle, absolute = conf.idle_timeout(), conf.absolute_timeout()
    ended = 0
    while found := expiry.list_expired_sessions(now=clock.now(), idle_timeout=idle, absolute_timeout=absolute):
        ended += sum(_end_in_batches(pks, reason) for reason, pks in found)
    return ended + _end_in_batches(expiry.list_orphaned_sessions(wait=_wait_for_requests), EndReason.SESSION_LOST)


def _end_in_batches(session_ids: Sequence[uuid.UUID], reason: EndReason) -> int:
    parts = [session_ids[start : start + expiry.BATCH_SIZE] for start in range(0, len(session_ids), expiry.BATCH_SIZE)]
    ended = sum(len(end_sessions(part, reason, origin=Origin(), now=clock.now())) for part in parts)
    if reason is EndReason.USER_INACTIVE:
        # No signal told of it, or their claims were gone by now.
        for part in parts:
            users = OIDCSession.objects.filter(pk__in=part, user__isnull=False).values_list("user", flat=True)
            with transaction.atomic():
                scrub_inactive_users(set(users), origin=Origin(), now=clock.now())
    return ended


def _wait_for_requests() -> None:
    time.sleep(_MAX_REQUEST_SECONDS)


def end_session_and_revoke(
    session_id: uuid.UUID, reason: EndReason, *, origin: Origin, now: datetime
) -> EndedSession | None:
    """End the session as `end_session` does, and revoke its tokens as `revoke_soon` does."""
    with batch_delivery():
        ended = end_session(session_id, reason, origin=origin, now=now)
        revoke_after_commit(ended.revocation_ids if ended else ())
    return ended


def revoke_after_commit(revocation_ids: Sequence[uuid.UUID]) -> None:
    """After the open transaction, if there is one, try these revocations in their order within 2 s for all of them.

    What the time did not suffice for is due, what failed has a due time, and the sweep goes on. The OP can't make this
    raise.
    """
    if not revocation_ids:
        return

    def revoke_inline() -> None:
        token_revocation.attempt_revocations(
            revocation_ids,
            now=clock.now(),
            budget_seconds=INLINE_SECONDS,
            give_up_after=conf.revocation_give_up_after(),
        )

    transaction.on_commit(revoke_inline, robust=True)


def revoke_received_tokens(tokens: Sequence[ReceivedToken], *, provider: str) -> None:
    """Queue tokens that no session holds, and try them, before this returns.

    When not even the queue can be written, for want of the database or of a key, the OP is asked straight away: what
    then fails lives until it expires, and the log says so.
    """
    try:
        pks = retry_on_lost_connection(
            lambda: token_revocation.queue_revocations(tokens, provider=provider, now=clock.now())
        )
    except (DatabaseError, InterfaceError, KeyRingError):
        logger.exception("The revocations of a refused sign-in can't be queued; the provider is asked at once.")
        _revoke_without_queue(tokens, provider=provider)
    else:
        revoke_after_commit(pks)


def retry_on_lost_connection(operation: Callable[[], T]) -> T:
    """Return act(), tried once more on a new connection when that to the default database was lost.

    act: one transaction of its own.
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
        left = max(ends_at - time.monotonic(), _MIN_CALL_SECONDS)
        result = token_revocation.revoke_at_provider(
            token, provider_name=provider, now=clock.now(), timeout_seconds=left
        )
        if result.error_code:
            logger.error("A token of a refused sign-in is alive and not queued: %s.", result.error_code)
