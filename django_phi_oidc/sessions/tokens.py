"""A live access token of a session, for the host project's own calls: the one that is kept, or a newer one."""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from django.db import connections, transaction
from django.http import HttpRequest
from django.views.decorators.debug import sensitive_variables

from .. import clock
from ..audit.events import Origin
from ..audit.request import Actor, session_id_of
from ..errors import RefreshInsideTransaction, RefreshMismatch, SignInRefused, TokenExpired
from ..oidc.token import ReceivedToken
from . import refreshing
from .ending import end_session
from .models import Doomed, EndReason, OIDCSession, PendingRevocation
from .refreshing import Lease
from .tasks import CALL_SECONDS, on_live_connection, revoke_received, revoke_soon

logger = logging.getLogger(__name__)
T = TypeVar("T")
POLL_SECONDS = 0.05


@sensitive_variables()
def access_token(session: OIDCSession | uuid.UUID | HttpRequest) -> str:
    """Return an access token of the session that has not expired; session: its row, its id, or a request that bears it.

    One that expires within 30 s is refreshed first, by one caller at a time across all processes; the others wait for
    that one's, 8 s at most. While the OP can't be asked, the old one is returned for as long as it lives. What a
    refresh brings is committed on its own, whatever is rolled back later. Its answer may end the session (R8).

    Raises: TokenExpired; RefreshInsideTransaction, on SQLite alone, when a refresh is due; Undecryptable.
    Spec: OIDC Core 12.
    """
    row = _look(_id_of(session))
    if refreshing.is_due(row, now=clock.now()):
        origin = Origin() if isinstance(session, OIDCSession | uuid.UUID) else Actor.from_request(session).origin
        row = _outside_transaction(partial(_refresh, row, origin=origin)) or _look(row.pk)
    token = refreshing.live_token(row, now=clock.now())
    if not token:
        raise TokenExpired
    return token


def _id_of(session: OIDCSession | uuid.UUID | HttpRequest) -> uuid.UUID:
    if isinstance(session, uuid.UUID):
        return session
    session_id = session.pk if isinstance(session, OIDCSession) else session_id_of(session.session)
    if session_id is None:
        raise TokenExpired
    return session_id


def _look(session_id: uuid.UUID) -> OIDCSession:
    row = refreshing.find(session_id)
    if row is None:
        raise TokenExpired
    return row


def _outside_transaction(act: Callable[[], T]) -> T | None:
    """Return act(), which commits for itself; None when it goes on after 8 s, in a thread of its own.

    Inside a transaction that thread has connections of its own. It may wait for a lock that the caller's transaction
    holds, so the caller does not wait for it any longer than that.
    """
    connection = transaction.get_connection()
    if connection.get_autocommit() and not connection.in_atomic_block:
        return act()
    if connection.vendor == "sqlite":
        # Whoever writes holds the whole file: a second connection could not.
        raise RefreshInsideTransaction
    future: Future[T] = Future()
    threading.Thread(target=_act_apart, args=(act, future), name="phi_oidc.refresh").start()
    try:
        return future.result(timeout=CALL_SECONDS)
    except TimeoutError:
        return None


def _act_apart(act: Callable[[], T], future: "Future[T]") -> None:
    try:
        result = act()
    except BaseException as error:  # noqa: BLE001 -- it is raised where somebody waits for it
        connections.close_all()
        future.set_exception(error)
    else:
        connections.close_all()
        future.set_result(result)


def _refresh(seen: OIDCSession, *, origin: Origin) -> OIDCSession:
    """Return the session's row once it has other tokens than those seen, or as it is when they can't be had.

    What another caller has tried in vain meanwhile is not tried again. Raises: TokenExpired when the session has ended.
    """
    ends_at = time.monotonic() + CALL_SECONDS
    was_held = False
    while True:
        row = _look(seen.pk)
        if row.access_token_expires_at != seen.access_token_expires_at:
            return row
        if was_held and row.refresh_lease_until is None:
            return row
        if row.refresh_lease_until is not None and row.refresh_lease_until > clock.now():
            was_held = True
        elif _attempt(row, origin=origin):
            return _look(seen.pk)
        if time.monotonic() >= ends_at:
            return row
        time.sleep(POLL_SECONDS)


@sensitive_variables()
def _attempt(seen: OIDCSession, *, origin: Origin) -> bool:
    """Refresh the tokens and settle whatever comes of it; return False when another does that, or the row is held."""
    lease = refreshing.take_lease(seen, now=clock.now())
    if lease is None:
        return False
    received: list[ReceivedToken] = []
    try:
        revocations = _spend(lease, received, origin=origin)
    except BaseException:
        # Nothing that is committed names them.
        if received:
            revoke_received(received, provider=lease.provider)
        raise
    revoke_soon(revocations)
    return True


@sensitive_variables()
def _spend(lease: Lease, received: list[ReceivedToken], *, origin: Origin) -> Sequence[uuid.UUID]:
    """Ask the OP; keep what it gave, or end the session, or leave it as it is; return the revocations to be tried."""
    try:
        refreshed = refreshing.ask(lease, received=received, clock=clock.now, deadline=CALL_SECONDS)
    except (SignInRefused, RefreshMismatch) as refusal:
        logger.warning("Session %s was not refreshed: %s: %s", lease.session_id, refusal.code, refusal)
        reason = refreshing.end_reason(refusal)
        if reason is None:
            on_live_connection(partial(refreshing.give_back, lease))
        doomed = received
    else:
        reason = None
        doomed = on_live_connection(partial(refreshing.keep, lease, refreshed, received=received))
    if reason is None and not doomed:
        return ()
    return on_live_connection(partial(_write_off, lease, doomed, reason=reason, origin=origin))


def _write_off(
    lease: Lease, doomed: Sequence[ReceivedToken], *, reason: EndReason | None, origin: Origin
) -> Sequence[uuid.UUID]:
    """Queue tokens that nobody keeps, and end the session if there is a reason, in one transaction."""
    now = clock.now()
    rows = [Doomed(token=token, provider=lease.provider, session=lease.session_id) for token in doomed]
    with transaction.atomic(durable=True):
        # The newest first: they live, whatever the OP has done to those before.
        queued = PendingRevocation.objects.queue(rows, now=now)
        # A grant that the session has no more, after a stronger sign-in or another's refresh, is none of its own.
        if reason is EndReason.INVALID_GRANT and not refreshing.give_back(lease):
            reason = None
        ended = end_session(lease.session_id, reason, origin=origin, now=now) if reason else None
    return (*queued, *(ended.revocations if ended else ()))
