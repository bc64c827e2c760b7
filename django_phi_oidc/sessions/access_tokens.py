"""A valid access token of a session for the host project's own calls: the stored one, or a
refreshed one.
"""

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

from .._internal import clock
from .._internal.lease import is_lease_active
from ..audit.events import Origin
from ..audit.request_context import Actor, find_oidc_session_id
from ..errors import (
    RefreshInsideTransaction,
    RefreshMismatch,
    SignInRefused,
    TokenError,
    TokenExpired,
)
from ..oidc.dpop import create_proof_key
from ..oidc.remedies import get_remedy
from ..oidc.token import ReceivedToken
from ..provider.dpop_requests import create_request_proof
from . import token_refresh
from .lifecycle import end_session
from .models import EndReason, OIDCSession
from .tasks import (
    CALL_SECONDS,
    retry_on_lost_connection,
    revoke_after_commit,
    revoke_received_tokens,
)
from .token_refresh import RefreshLease
from .token_revocation import queue_revocations

logger = logging.getLogger(__name__)
T = TypeVar("T")
POLL_INTERVAL_SECONDS = 0.05


@sensitive_variables()
def get_access_token(session: OIDCSession | uuid.UUID | HttpRequest) -> str:
    """Return an access token that has not expired. session: its row, its id, or a request with such
    a session.

    A token that expires within 30 s is refreshed first, by one caller at a time across all
    processes; the others wait up to 8 s for the result. While the provider is unavailable, the old
    token is returned until it expires. New tokens are committed independently of the caller's
    transaction. The provider's response may end the session (R8).
    With DPoP, an API accepts it only with a proof: use `get_api_headers`.
    Raises: TokenExpired; RefreshInsideTransaction, on SQLite, when a refresh is due; KeyRingError.
    Spec: OIDC Core 12.
    """
    return _get_live_token(session)[1]


@sensitive_variables()
def get_api_headers(
    session: OIDCSession | uuid.UUID | HttpRequest, *, method: str, url: str
) -> dict[str, str]:
    """Return the headers that authorize one request to an API: `Authorization`, and `DPoP` if the
    token is bound.

    session: as of `get_access_token`. method, url: of the request, exactly as it is sent; a
    redirect needs new headers. Pass the response to `remember_dpop_nonce`. Raises: as
    `get_access_token`. Spec: RFC 6750 2.1; RFC 9449 7.1.
    """
    row, token = _get_live_token(session)
    if not (seed := row.decrypt("dpop_seed")):
        return {"Authorization": f"Bearer {token}"}
    proof = create_request_proof(
        create_proof_key(seed), method=method, url=url, access_token=token, now=clock.now()
    )
    return {"Authorization": f"DPoP {token}", "DPoP": proof}


@sensitive_variables()
def _get_live_token(session: OIDCSession | uuid.UUID | HttpRequest) -> tuple[OIDCSession, str]:
    """Return the row and its access token, as `get_access_token`."""
    if isinstance(session, OIDCSession):
        session = session.pk
    row = _get_live_session(
        session if isinstance(session, uuid.UUID) else find_oidc_session_id(session.session)
    )
    if token_refresh.is_refresh_due(row, now=clock.now()):
        if isinstance(session, uuid.UUID):
            origin = Origin()
        else:
            origin = Actor.from_request(session).origin
        row = _run_outside_transaction(
            partial(_refresh_tokens, row, origin=origin)
        ) or _get_live_session(row.pk)
    token = token_refresh.get_live_access_token(row, now=clock.now())
    if not token:
        raise TokenExpired
    return row, token


def _get_live_session(session_id: uuid.UUID | None) -> OIDCSession:
    row = None
    if session_id:
        row = token_refresh.find_session_with_tokens(session_id)

    if row is None:
        raise TokenExpired
    return row


def _run_outside_transaction(operation: Callable[[], T]) -> T | None:
    """Return operation(), which commits its own work; None when it takes longer than 8 s in a
    thread.

    Inside a transaction it runs in a thread with its own connections. It may wait for a lock that
    the caller's transaction holds, so the caller stops waiting then.
    """
    connection = transaction.get_connection()
    if connection.get_autocommit() and not connection.in_atomic_block:
        return operation()
    if connection.vendor == "sqlite":
        # A writer locks the whole file, so a second connection could not write.
        raise RefreshInsideTransaction
    future: Future[T] = Future()
    threading.Thread(
        target=_run_in_thread, args=(operation, future), name="phi_oidc.refresh"
    ).start()
    try:
        return future.result(timeout=CALL_SECONDS)
    except TimeoutError:
        return None


def _run_in_thread(operation: Callable[[], T], future: "Future[T]") -> None:
    try:
        result = operation()
    except BaseException as error:  # noqa: BLE001 -- raised again in the waiting thread
        connections.close_all()
        future.set_exception(error)
    else:
        connections.close_all()
        future.set_result(result)


def _refresh_tokens(session: OIDCSession, *, origin: Origin) -> OIDCSession:
    """Return the row with changed tokens, or unchanged after a failed refresh by any caller.
    Raises: TokenExpired.
    """
    ends_at = time.monotonic() + CALL_SECONDS
    was_leased = False
    while True:
        row = _get_live_session(session.pk)
        if row.access_token_expires_at != session.access_token_expires_at:
            return row
        if was_leased and row.refresh_lease_until is None:
            return row
        if is_lease_active(
            row.refresh_lease_until, now=clock.now(), lease=token_refresh.LEASE_DURATION
        ):
            was_leased = True
        elif _attempt_refresh(row, origin=origin):
            return _get_live_session(session.pk)
        if time.monotonic() >= ends_at:
            return row
        time.sleep(POLL_INTERVAL_SECONDS)


@sensitive_variables()
def _attempt_refresh(session: OIDCSession, *, origin: Origin) -> bool:
    """Refresh the tokens and store the outcome; return False when another caller has the lease or
    locks the row.
    """
    lease = token_refresh.acquire_lease(session, now=clock.now())
    if lease is None:
        return False
    received: list[ReceivedToken] = []
    try:
        revocations = _use_refresh_token(lease, received, origin=origin)
    except BaseException:
        # No committed row refers to these tokens.
        if received:
            revoke_received_tokens(received, provider=lease.provider)
        raise
    revoke_after_commit(revocations)
    return True


@sensitive_variables()
def _use_refresh_token(
    lease: RefreshLease, received: list[ReceivedToken], *, origin: Origin
) -> Sequence[uuid.UUID]:
    """Request tokens, then store them, end the session, or change nothing; return the revocations
    to try.
    """
    try:
        result = token_refresh.request_tokens(
            lease, new_tokens=received, clock=clock.now, timeout_seconds=CALL_SECONDS
        )
    except (SignInRefused, RefreshMismatch) as refusal:
        if isinstance(refusal, TokenError):
            provider_error = refusal.error
        else:
            provider_error = ""

        remedy = get_remedy(refusal.code, provider_error)
        logger.warning(
            "Session %s was not refreshed: %s: %s %s",
            lease.session_id,
            refusal.code,
            refusal,
            remedy,
        )
        reason = token_refresh.find_end_reason(refusal)
        if reason is None:
            retry_on_lost_connection(partial(token_refresh.release_lease, lease))
        unused = received
    else:
        reason = None
        store = partial(
            token_refresh.store_tokens,
            lease,
            result,
            new_tokens=received,
            origin=origin,
            now=clock.now(),
        )
        unused = retry_on_lost_connection(store)
    if reason is None and not unused:
        return ()
    return retry_on_lost_connection(
        partial(_discard_tokens, lease, unused, reason=reason, origin=origin)
    )


def _discard_tokens(
    lease: RefreshLease,
    tokens: Sequence[ReceivedToken],
    *,
    reason: EndReason | None,
    origin: Origin,
) -> Sequence[uuid.UUID]:
    """Queue tokens that are not stored, and end the session if there is a reason, in one
    transaction.
    """
    now = clock.now()
    with transaction.atomic(durable=True):
        # The newest tokens first: they are valid, while the provider may have revoked the older
        # ones.
        queued = queue_revocations(
            tokens, provider=lease.provider, session_id=lease.session_id, now=now
        )
        # The session was re-authenticated or refreshed in the meantime, so this grant is no longer
        # current: do not end the session.
        if reason is EndReason.INVALID_GRANT and not token_refresh.release_lease(lease):
            reason = None

        ended = None
        if reason:
            ended = end_session(lease.session_id, reason, origin=origin, now=now)
    return (*queued, *(ended.revocation_ids if ended else ()))
