"""Refresh the tokens of a session, by one caller at a time across all processes (R8).

The steps: `acquire_lease`, committed; `request_tokens`, without an open transaction; `store_tokens`
or `release_lease`, committed. A killed process leaves a lease that expires. Ending a session waits
for none of these steps: `store_tokens` stores nothing for an ended session. Spec: OIDC Core 12.
"""

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.views.decorators.debug import sensitive_variables

from .. import conf
from .._internal import randomness, request_secrets
from ..audit.events import Origin
from ..audit.outbox import enqueue_many
from ..claims.minimization import list_personal_claims
from ..errors import (
    Code,
    IDTokenError,
    KeyMissing,
    KeyNotFound,
    RefreshMismatch,
    SignInRefused,
    TokenError,
    TokenResponseError,
)
from ..http.transport import TransportRequest
from ..oidc.client_auth import AssertionFreshness
from ..oidc.dpop import create_proof_key
from ..oidc.jose import parse_compact_jws
from ..oidc.refresh import (
    build_refresh_request,
    process_refresh_response,
    verify_refreshed_id_token,
)
from ..oidc.token import ReceivedToken, TokenResponse, TokenType, extract_received_tokens
from ..provider.dpop_requests import send_with_proof
from ..provider.registry import get_provider
from .digests import build_token_columns
from .kept_id_token import KeptIDToken, reduce_id_token
from .models import EndReason, OIDCSession, PendingRevocation, RevocationStatus, SessionToken

LEASE_DURATION = timedelta(seconds=30)
"""Longer than all calls of `request_tokens` together."""
REFRESH_MARGIN = timedelta(seconds=30)
"""Tokens are refreshed this long before they expire, because the caller's request takes time and
clocks differ.
"""
_MIN_CALL_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshLease:
    """The right to refresh the tokens of a session, and the tokens."""

    session_id: uuid.UUID
    provider: str
    expires_at: datetime
    """Identifies the lease: the row has this value until another caller acquires it."""
    refresh_token: str = field(repr=False)
    access_token: str = field(repr=False)
    dpop_seed: str = field(repr=False)
    """Of the key that the tokens are bound to; empty for Bearer tokens."""
    id_token: str = field(repr=False)
    """Empty if the session does not keep it."""
    id_token_claims: Mapping[str, Any] = field(repr=False)
    """Those that the session keeps of the ID Token of the sign-in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshResult:
    """The validated tokens of a refresh response."""

    tokens: TokenResponse
    access_token_expires_at: datetime | None
    """None when the provider does not state it."""
    id_token: KeptIDToken | None = None
    """None when the provider sent none."""


def find_session_with_tokens(session_id: uuid.UUID) -> OIDCSession | None:
    """Return a live session; None when it has ended or never existed."""
    return OIDCSession.objects.live().filter(pk=session_id).first()


def is_refresh_due(row: OIDCSession, *, now: datetime) -> bool:
    """Say whether the access token must and can be refreshed. Without a known expiry it counts as
    valid.
    """
    expires_at = row.access_token_expires_at
    return bool(row.refresh_token) and expires_at is not None and expires_at <= now + REFRESH_MARGIN


@sensitive_variables()
def get_live_access_token(row: OIDCSession, *, now: datetime) -> str:
    """Return the access token, or empty if there is none or it has expired. Raises:
    KeyRingError.
    """
    expires_at = row.access_token_expires_at
    if expires_at is not None and expires_at <= now:
        return ""
    return row.decrypt("access_token")


@sensitive_variables()
def acquire_lease(session: OIDCSession, *, now: datetime) -> RefreshLease | None:
    """Return the lease of the session, committed; None when it is not available.

    It is not while another caller holds it, when the session has ended or has other tokens than
    `session`, and while a transaction locks the row. That may be the caller's own transaction on
    another connection, so this does not wait.
    Requires: `is_refresh_due(session)`. Raises: KeyRingError; RuntimeError inside an open
    transaction.
    """
    unchanged = OIDCSession.objects.live().filter(
        access_token_expires_at=session.access_token_expires_at
    )
    with transaction.atomic(durable=True):
        if not unchanged.acquire_lease(session.pk, now=now, lease=LEASE_DURATION):
            return None
        row = OIDCSession.objects.get(pk=session.pk)
        return RefreshLease(
            session_id=row.pk,
            provider=row.provider,
            expires_at=now + LEASE_DURATION,
            refresh_token=row.decrypt("refresh_token"),
            access_token=row.decrypt("access_token"),
            dpop_seed=row.decrypt("dpop_seed"),
            id_token=row.decrypt("id_token"),
            id_token_claims=json.loads(row.decrypt("id_token_claims") or "{}"),
        )


@sensitive_variables()
def request_tokens(
    lease: RefreshLease,
    *,
    new_tokens: list[ReceivedToken],
    clock: Callable[[], datetime],
    timeout_seconds: float,
) -> RefreshResult:
    """Send the refresh token once and return the validated response. Nothing is stored.

    new_tokens: gets every new token as soon as it is received, even if the response is refused
    later.
    timeout_seconds: for metadata and keys together, again for the refresh, and again for keys that
    the response needs. A session whose tokens are bound to a key stays bound. One without a key is
    not refreshed if `dpop` is `require`.
    Requires: no open transaction. Raises: SignInRefused; RefreshMismatch. Spec: OIDC Core 12; RFC
    9449 5.
    """
    ends_at = time.monotonic() + timeout_seconds
    provider = get_provider(lease.provider)
    declaration = provider.declaration

    proof_key = None
    if lease.dpop_seed:
        proof_key = create_proof_key(lease.dpop_seed)

    token_types: tuple[TokenType, ...]
    if proof_key:
        token_types = ("DPoP",)
    else:
        token_types = ("Bearer",)

    if declaration.dpop == "require" and proof_key is None:
        # Before the refresh token is used: the provider's tokens would be refused.
        message = "The session is from before dpop was required: its tokens are bound to no key."
        raise TokenResponseError(Code.TOKEN_TYPE_UNSUPPORTED, message)
    metadata = provider.get_metadata(timeout_seconds=timeout_seconds)
    # Fetched before the refresh token is used: without keys the response could not be verified.
    keys = provider.get_key_set(
        timeout_seconds=max(ends_at - time.monotonic(), _MIN_CALL_SECONDS), source="provider"
    )
    sent_at = clock()

    def build_request() -> TransportRequest:
        return build_refresh_request(
            metadata=metadata,
            declaration=declaration,
            refresh_token=lease.refresh_token,
            freshness=AssertionFreshness(now=clock(), jti=randomness.token_b64url(32)),
        )

    # With the full time-out: an interrupted call may lose the only refresh token that the provider
    # still accepts.
    response = send_with_proof(
        build_request,
        transport=provider.transport,
        key=proof_key,
        clock=clock,
        timeout_seconds=timeout_seconds,
    )
    known = (lease.refresh_token, lease.access_token)
    for token in extract_received_tokens(response):
        if token.value not in known:
            new_tokens.append(token)
    for token in new_tokens:
        request_secrets.register_secret(token.value, token.token_type_hint)
    tokens = process_refresh_response(response, declaration=declaration, token_types=token_types)
    request_secrets.register_secret(tokens.id_token, "id_token")
    id_token = None
    if tokens.id_token:
        claims = verify_refreshed_id_token(
            tokens.id_token,
            original_claims=lease.id_token_claims,
            keys=keys,
            declaration=declaration,
            access_token=tokens.access_token,
            now=clock(),
        )
        id_token = reduce_id_token(tokens.id_token, claims, policy=declaration.id_token_hint)

    if tokens.expires_in is None:
        expires_at = None
    else:
        expires_at = sent_at + tokens.expires_in

    return RefreshResult(tokens=tokens, access_token_expires_at=expires_at, id_token=id_token)


def find_end_reason(refusal: SignInRefused | RefreshMismatch) -> EndReason | None:
    """Return why an error of `request_tokens` ends the session; None when the session keeps its
    tokens.

    Faults of the provider end no session, and neither does its refusal of this client: the grant
    may still be valid.
    """
    if isinstance(refusal, KeyNotFound) and not refusal.is_certain:
        return None
    if isinstance(refusal, RefreshMismatch | IDTokenError | KeyNotFound):
        return EndReason.REFRESH_MISMATCH
    if (
        isinstance(refusal, TokenError)
        and refusal.error == "invalid_grant"
        and not refusal.is_provider_fault
    ):
        return EndReason.INVALID_GRANT
    return None


@sensitive_variables()
def store_tokens(
    lease: RefreshLease,
    refresh_result: RefreshResult,
    *,
    new_tokens: Sequence[ReceivedToken],
    origin: Origin,
    now: datetime,
) -> list[ReceivedToken]:
    """Store the tokens and release the lease, if it is still held and the session is live; return
    those to revoke.

    When they were stored, there are none to revoke. Else they are all new tokens except those that
    another caller has stored since. Where the provider sent no new refresh or ID Token, or one that
    is not kept, the old one stays.

    The replaced access token is valid for up to `REFRESH_MARGIN`. If the session ends before, it is
    revoked as well; it is not revoked now, because the provider may then revoke the refresh token
    of the same grant, too (RFC 7009 2.1), and so the session. The provider itself invalidated the
    replaced refresh token when it issued another one (RFC 6749 6).
    Raises: KeyRingError; RuntimeError inside an open transaction.
    """
    with transaction.atomic(durable=True):
        live = OIDCSession.objects.live()
        if live.release_lease(lease.session_id, expires_at=lease.expires_at):
            _queue_replaced_token(lease, refresh_result.tokens, now=now)
            values = build_token_columns(refresh_result.tokens)
            if refresh_result.id_token and _replaces_id_token(
                lease, refresh_result.id_token, origin=origin, now=now
            ):
                values["id_token"] = refresh_result.id_token.token
            expires_at = refresh_result.access_token_expires_at
            row = OIDCSession(pk=lease.session_id, access_token_expires_at=expires_at, **values)
            row.save(update_fields=[*values, "access_token_expires_at"])
            return []
        other = live.filter(pk=lease.session_id).first()
        stored: tuple[str, ...]
        if other:
            stored = (other.decrypt("refresh_token"), other.decrypt("access_token"))
        else:
            stored = ()

        tokens = []
        for token in new_tokens:
            if token.value not in stored:
                tokens.append(token)
        return tokens


def _queue_replaced_token(lease: RefreshLease, tokens: TokenResponse, *, now: datetime) -> None:
    """Queue the access token of the session for revocation when the session ends, and drop the
    queued ones that have expired.

    Requires: the session is locked, and still has the tokens of the lease.
    """
    revocations = PendingRevocation.objects
    if lease.access_token and lease.access_token != tokens.access_token:
        revocations.move_tokens(
            [SessionToken(session_id=lease.session_id, hint="access_token")],
            now=now,
            due_at=now + conf.absolute_timeout(),
        )
    # Only those that wait for the end of the session: the others are revoked in any case.
    waiting = revocations.filter(
        session=lease.session_id, status=RevocationStatus.PENDING, created_at__gt=now
    )
    leeway = get_provider(lease.provider).declaration.leeway
    waiting.filter(token_expires_at__lt=now - leeway).delete()


def _replaces_id_token(
    lease: RefreshLease, id_token: KeptIDToken, *, origin: Origin, now: datetime
) -> bool:
    """Return whether to store the new token, and queue the event if it has claims that the old one
    did not have.

    A token with claims about the person only replaces another one: if the session has none any
    more, these claims were erased on request. Without its event it is not stored.
    """
    if not id_token.personal_claims:
        return bool(id_token.token)
    row = (
        OIDCSession.objects.filter(pk=lease.session_id, id_token__isnull=False)
        .select_related("subject")
        .first()
    )
    if row is None:
        return False
    events = id_token.build_events(
        origin=origin._replace(session=str(row.pk)),
        now=now,
        provider=row.provider,
        subject=str(row.subject.uuid) if row.subject else "",
        known=list_personal_claims(parse_compact_jws(lease.id_token).payload)
        if lease.id_token
        else (),
    )
    try:
        enqueue_many(events)
    except KeyMissing:
        # Without the keys of the audit log the refresh must not fail, because the old refresh token
        # is used up.
        return False
    return True


def release_lease(lease: RefreshLease) -> bool:
    """Release the lease without a change; return False if it was no longer held."""
    return OIDCSession.objects.release_lease(lease.session_id, expires_at=lease.expires_at)
