"""Tokens die: at once, within the budget of a request, or by the sweep. No request sends a message: brokers hang."""

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from celery import shared_task
from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction

from .. import clock, conf
from ..audit.events import Origin
from ..audit.outbox import moving_together
from ..claims.scrubbing import scrub_inactive
from ..errors import KeyRingError
from ..oidc.token import ReceivedToken
from . import expiring, revoking
from .ending import Ended, end_session, end_sessions
from .models import EndReason, OIDCSession

logger = logging.getLogger(__name__)
T = TypeVar("T")

INLINE_SECONDS = 2.0
"""For all tokens of a request together."""
CALL_SECONDS = 8.0
SWEEP_SECONDS = 50.0
_LEAST_SECONDS = 0.05
_REQUEST_SECONDS = 5.0
"""What a request takes, between its cycling a Django session's key and its end; a longer one signs a person out."""


@shared_task(name="phi_oidc.sweep_revocations", ignore_result=True, acks_late=True)
def sweep_revocations() -> None:
    """Try all revocations that are due."""
    revoking.sweep(
        clock=clock.now,
        seconds=SWEEP_SECONDS,
        deadline=CALL_SECONDS,
        give_up_after=conf.revocation_give_up_after(),
    )


@shared_task(name="phi_oidc.end_overdue", ignore_result=True, acks_late=True)
def end_overdue() -> int:
    """End each session that is past its limits, of nobody any more, or without a Django session; return how many.

    Their tokens are left to the sweep.
    """
    idle, absolute = conf.idle_timeout(), conf.absolute_timeout()
    ended = 0
    while found := expiring.overdue(now=clock.now(), idle=idle, absolute=absolute):
        ended += sum(_end(pks, reason) for reason, pks in found)
    return ended + _end(expiring.lost_for_good(wait=_wait_for_requests), EndReason.SESSION_LOST)


def _end(pks: Sequence[uuid.UUID], reason: EndReason) -> int:
    parts = [pks[start : start + expiring.BATCH] for start in range(0, len(pks), expiring.BATCH)]
    ended = sum(len(end_sessions(part, reason, origin=Origin(), now=clock.now())) for part in parts)
    if reason is EndReason.USER_INACTIVE:
        # No signal told of it, or their claims were gone by now.
        for part in parts:
            users = OIDCSession.objects.filter(pk__in=part, user__isnull=False).values_list("user", flat=True)
            with transaction.atomic():
                scrub_inactive(set(users), origin=Origin(), now=clock.now())
    return ended


def _wait_for_requests() -> None:
    time.sleep(_REQUEST_SECONDS)


def end_at_once(session_id: uuid.UUID, reason: EndReason, *, origin: Origin, now: datetime) -> Ended | None:
    """End the session as `end_session` does, and revoke its tokens as `revoke_soon` does."""
    with moving_together():
        ended = end_session(session_id, reason, origin=origin, now=now)
        revoke_soon(ended.revocations if ended else ())
    return ended


def revoke_soon(pks: Sequence[uuid.UUID]) -> None:
    """After the open transaction, if there is one, try these revocations in their order within 2 s for all of them.

    What the time did not suffice for is due, what failed has a due time, and the sweep goes on. The OP can't make this
    raise.
    """
    if not pks:
        return

    def revoke_inline() -> None:
        revoking.attempt_all(
            pks, now=clock.now(), seconds=INLINE_SECONDS, give_up_after=conf.revocation_give_up_after()
        )

    transaction.on_commit(revoke_inline, robust=True)


def revoke_received(tokens: Sequence[ReceivedToken], *, provider: str) -> None:
    """Queue tokens that no session holds, and try them, before this returns.

    When not even the queue can be written, for want of the database or of a key, the OP is asked straight away: what
    then fails lives until it expires, and the log says so.
    """
    try:
        pks = on_live_connection(lambda: revoking.queue_revocations(tokens, provider=provider, now=clock.now()))
    except (DatabaseError, InterfaceError, KeyRingError):
        logger.exception("The revocations of a refused sign-in can't be queued; the provider is asked at once.")
        _revoke_unqueued(tokens, provider=provider)
    else:
        revoke_soon(pks)


def on_live_connection(act: Callable[[], T]) -> T:
    """Return act(), tried once more on a new connection when that to the default database was lost.

    act: one transaction of its own.
    """
    try:
        return act()
    except (OperationalError, InterfaceError):
        if connection.in_atomic_block:
            raise
        connection.close()
        return act()


def _revoke_unqueued(tokens: Sequence[ReceivedToken], *, provider: str) -> None:
    ends_at = time.monotonic() + INLINE_SECONDS
    for token in tokens:
        left = max(ends_at - time.monotonic(), _LEAST_SECONDS)
        result = revoking.call_provider(token, provider_name=provider, now=clock.now(), deadline=left)
        if result.fault:
            logger.error("A token of a refused sign-in is alive and not queued: %s.", result.fault)
