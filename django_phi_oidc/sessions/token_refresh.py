"""R8: a session's tokens are replaced by newer ones, by one caller at a time, whatever the process. Spec: Core 12.

The steps: `take_lease`, committed; `ask`, with no transaction open; `keep`, committed, or `give_back`. Who is killed in
between leaves a lease that runs out. Ending a session waits for none of that: `keep` finds it ended, and keeps nothing.
"""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, cast

from django.db import connections, transaction
from django.db.models import Q
from django.views.decorators.debug import sensitive_variables

from .._internal import randomness, request_secrets
from ..errors import IDTokenError, KeyNotFound, RefreshMismatch, SignInRefused, TokenError
from ..fields import SealedTextField
from ..oidc.client_auth import AssertionFreshness
from ..oidc.jose import parse_compact_jws
from ..oidc.refresh import build_refresh_request, process_refresh_response, verify_refreshed_id_token
from ..oidc.token import ReceivedToken, TokenResponse, TokenTypeHint, extract_received_tokens
from ..provider.registry import get_provider
from .models import EndReason, OIDCSession

LEASE_DURATION = timedelta(seconds=30)
"""How long the tokens are one caller's; longer than all deadlines of `ask` together."""
REFRESH_MARGIN = timedelta(seconds=30)
"""A token that expires within it is refreshed: a call that is made with it takes time, and clocks differ."""
_MIN_CALL_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshLease:
    """The right to refresh the tokens of a session, and what that takes."""

    session_id: uuid.UUID
    provider: str
    expires_at: datetime
    """What the row says for as long as nobody else has taken it."""
    refresh_token: str = field(repr=False)
    access_token: str = field(repr=False)
    id_token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshResult:
    """What the OP gave, all checks passed."""

    tokens: TokenResponse
    access_token_expires_at: datetime | None
    """Of the access token; None when the OP does not say."""


def find_session_with_tokens(session_id: uuid.UUID) -> OIDCSession | None:
    """Return the row of a session that lives; None when it has ended or was never there."""
    return OIDCSession.objects.filter(pk=session_id, ended_at=None).first()


def is_refresh_due(row: OIDCSession, *, now: datetime) -> bool:
    """Say whether the access token is to be refreshed, and can be. One of unknown lifetime is taken to live."""
    expires_at = row.access_token_expires_at
    return bool(row.refresh_token) and expires_at is not None and expires_at <= now + REFRESH_MARGIN


@sensitive_variables()
def get_live_access_token(row: OIDCSession, *, now: datetime) -> str:
    """Return the access token; empty when there is none or it has expired. Raises: Undecryptable."""
    expires_at = row.access_token_expires_at
    return "" if expires_at is not None and expires_at <= now else _decrypt_column(row, "access_token")


@sensitive_variables()
def acquire_lease(session: OIDCSession, *, now: datetime) -> RefreshLease | None:
    """Return the lease of the session, committed; None when it is not to be had.

    That is while another has it, once the session has ended or has other tokens than those that were seen, and while a
    transaction holds the row: that one may be the caller's own, on another connection, so nobody waits for it.

    Requires: `is_due(seen)`. Raises: Undecryptable; RuntimeError inside an open transaction.
    """
    until = now + LEASE_DURATION
    free = OIDCSession.objects.filter(
        Q(refresh_lease_until=None) | Q(refresh_lease_until__lte=now),
        pk=session.pk,
        ended_at=None,
        access_token_expires_at=session.access_token_expires_at,
    )
    with transaction.atomic(durable=True):
        if connections[free.db].features.has_select_for_update_skip_locked and not list(
            free.select_for_update(skip_locked=True).values_list("pk")
        ):
            return None
        if not free.update(refresh_lease_until=until):
            return None
        row = OIDCSession.objects.get(pk=session.pk)
        return RefreshLease(
            session_id=row.pk,
            provider=row.provider,
            expires_at=until,
            refresh_token=_decrypt_column(row, "refresh_token"),
            access_token=_decrypt_column(row, "access_token"),
            id_token=_decrypt_column(row, "id_token"),
        )


@sensitive_variables()
def request_tokens(
    lease: RefreshLease, *, new_tokens: list[ReceivedToken], clock: Callable[[], datetime], timeout_seconds: float
) -> RefreshResult:
    """Return what the OP gives for the refresh token, which is sent once. Nothing is written.

    received: filled with every token that is new, as soon as it is here, whether or not the answer is accepted.
    deadline: seconds, for the OP's metadata and keys, again for the call, and again for keys that the answer names.

    Requires: no open transaction. Raises: SignInRefused; RefreshMismatch. Spec: OIDC Core 12.
    """
    ends_at = time.monotonic() + timeout_seconds
    provider = get_provider(lease.provider)
    declaration = provider.declaration
    metadata = provider.get_metadata(timeout_seconds=timeout_seconds)
    # Before the token is spent: without keys nobody could judge what came for it.
    keys = provider.get_key_set(timeout_seconds=max(ends_at - time.monotonic(), _MIN_CALL_SECONDS))
    sent_at = clock()
    request = build_refresh_request(
        metadata=metadata,
        declaration=declaration,
        refresh_token=lease.refresh_token,
        freshness=AssertionFreshness(now=sent_at, jti=randomness.token_b64url(32)),
    )
    # With all of the time: a call that is cut short may lose the only token that the OP takes from now on.
    response = provider.transport.send(request, timeout_seconds=timeout_seconds)
    known = (lease.refresh_token, lease.access_token)
    new_tokens.extend(token for token in extract_received_tokens(response) if token.value not in known)
    for token in new_tokens:
        request_secrets.register_secret(token.value, token.token_type_hint)
    tokens = process_refresh_response(response, declaration=declaration)
    request_secrets.register_secret(tokens.id_token, "id_token")
    if tokens.id_token:
        verify_refreshed_id_token(
            tokens.id_token,
            # Its signature was verified when it came.
            original_claims=parse_compact_jws(lease.id_token).payload,
            keys=keys,
            declaration=declaration,
            access_token=tokens.access_token,
            now=clock(),
        )
    return RefreshResult(
        tokens=tokens, access_token_expires_at=None if tokens.expires_in is None else sent_at + tokens.expires_in
    )


def find_end_reason(refusal: SignInRefused | RefreshMismatch) -> EndReason | None:
    """Return why the session ends after what `ask` has raised; None when it goes on with what it has.

    The OP's failures end no session, and neither does its refusal of this client: the grant may be as good as ever.
    """
    if isinstance(refusal, KeyNotFound) and not refusal.is_certain:
        return None
    if isinstance(refusal, RefreshMismatch | IDTokenError | KeyNotFound):
        return EndReason.REFRESH_MISMATCH
    if isinstance(refusal, TokenError) and refusal.error == "invalid_grant" and not refusal.provider_fault:
        return EndReason.INVALID_GRANT
    return None


@sensitive_variables()
def store_tokens(
    lease: RefreshLease, refresh_result: RefreshResult, *, new_tokens: Sequence[ReceivedToken]
) -> list[ReceivedToken]:
    """Store the tokens, and give the lease back, if it is still ours and the session lives; return those that must die.

    None, when they were stored. Else all that were received, but those that whoever has overtaken us has stored. Where
    the OP gave no new refresh or ID Token, the old one stays.

    The access token that is replaced is not revoked, although it lives for up to `MARGIN`: with it the OP may revoke
    the refresh token of the same grant (RFC 7009 2.1), and the session with that. The refresh token that is replaced
    was invalidated by the OP when it gave another one (RFC 6749 6).

    Raises: KeyMissing; RuntimeError inside an open transaction.
    """
    with transaction.atomic(durable=True):
        live = OIDCSession.objects.filter(pk=lease.session_id, ended_at=None)
        if live.filter(refresh_lease_until=lease.expires_at).update(refresh_lease_until=None):
            _save_tokens(lease.session_id, refresh_result)
            return []
        row = live.first()
        held = (_decrypt_column(row, "refresh_token"), _decrypt_column(row, "access_token")) if row else ()
        return [token for token in new_tokens if token.value not in held]


def release_lease(lease: RefreshLease) -> bool:
    """Let others try, if the lease is still ours, and say whether it was; what the session has stays."""
    leased = OIDCSession.objects.filter(pk=lease.session_id, refresh_lease_until=lease.expires_at)
    return bool(leased.update(refresh_lease_until=None))


@sensitive_variables()
def _save_tokens(session_id: uuid.UUID, refresh_result: RefreshResult) -> None:
    tokens = refresh_result.tokens
    new = {"access_token": tokens.access_token, "refresh_token": tokens.refresh_token, "id_token": tokens.id_token}
    values = {name: value for name, value in new.items() if value}
    row = OIDCSession(pk=session_id, access_token_expires_at=refresh_result.access_token_expires_at, **values)
    row.save(update_fields=[*values, "access_token_expires_at"])


def _decrypt_column(row: OIDCSession, column: TokenTypeHint | Literal["id_token"]) -> str:
    """Return the plain text of that column; empty when there is none. Raises: Undecryptable."""
    field_of_column = cast(SealedTextField, OIDCSession._meta.get_field(column))
    opened = field_of_column.decrypt(row) or ""
    request_secrets.register_secret(opened, column)
    return opened
