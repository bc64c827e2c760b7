"""Revoke tokens at the provider. Attempts, due times and results are stored in `PendingRevocation`. Spec: RFC 7009."""

import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from django.db import models, transaction
from django.views.decorators.debug import sensitive_variables

from .._internal import randomness, request_secrets
from .._internal.retry import compute_backoff
from ..audit.events import Action, NewEvent, Origin
from ..audit.outbox import enqueue_many
from ..errors import AccountError, Code, KeyRingError, MetadataError, TransportError, Undecryptable
from ..oidc.client_auth import AssertionFreshness
from ..oidc.revocation import build_revocation_request, process_revocation_response
from ..oidc.token import ReceivedToken, TokenTypeHint
from ..provider.registry import get_provider
from .models import PendingRevocation, RevocationStatus, TokenToRevoke
from .timeouts import is_abandoned

_MIN_CALL_SECONDS = 0.05
LEASE_DURATION = timedelta(seconds=30)
"""Longer than the limit of any call."""
_FINAL_RESULTS = ("done", "unsupported", "refused")
_ERROR_CODES = {"done": "", "unsupported": "unsupported_token_type", "retry_slowly": "invalid_client"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationAttemptResult:
    """The result of one attempt."""

    status: RevocationStatus
    error_code: str = ""
    """Empty when the token is revoked."""
    needs_operator: bool = False
    """Further attempts fail until an operator fixes something."""
    retry_after: timedelta | None = None
    """The provider's Retry-After."""


@sensitive_variables()
def queue_revocations(
    tokens: Sequence[ReceivedToken], *, provider: str, session_id: uuid.UUID | None = None, now: datetime
) -> tuple[uuid.UUID, ...]:
    """Create a PendingRevocation that is due at once for each token; return their ids in the order of tokens."""
    to_revoke = [TokenToRevoke(token=token, provider=provider, session_id=session_id) for token in tokens]
    return PendingRevocation.objects.queue(to_revoke, now=now)


def list_due(*, now: datetime, limit: int) -> list[uuid.UUID]:
    """Return the ids of due revocations, longest due first, and a refresh token before its access token."""
    rows = PendingRevocation.objects.due(now).order_by("due_at", "-token_type_hint", "id")
    return list(rows.values_list("id", flat=True)[:limit])


def attempt_revocation(
    revocation_id: uuid.UUID, *, now: datetime, timeout_seconds: float, give_up_after: timedelta
) -> RevocationStatus | None:
    """Try to revoke one token and store the result with its events.

    None: it was not tried, because it is unknown, finished, not due, or leased. Otherwise as `attempt_revocations`.
    """
    results = attempt_revocations([revocation_id], now=now, budget_seconds=timeout_seconds, give_up_after=give_up_after)
    return results.get(revocation_id)


def attempt_revocations(
    revocation_ids: Sequence[uuid.UUID], *, now: datetime, budget_seconds: float, give_up_after: timedelta
) -> dict[uuid.UUID, RevocationStatus | None]:
    """Try to revoke these tokens in this order, and store all results with their events together.

    Returns the status of each revocation that was leased; None: the budget was used up before. The leases are committed
    first, so two workers never try the same row, and the rows of a killed worker are due again when its leases end.
    Requires: budget_seconds below LEASE_DURATION. Raises: RuntimeError inside an open transaction, because the calls
    would keep it open.
    """
    started = time.monotonic()
    results: list[tuple[PendingRevocation, RevocationAttemptResult | None]] = []
    with transaction.atomic(durable=True):
        due, attempts = PendingRevocation.objects.due(now), models.F("attempts") + 1
        leased = [
            pk for pk in revocation_ids if due.acquire_lease(pk, now=now, lease=LEASE_DURATION, attempts=attempts)
        ]
        rows = PendingRevocation.objects.in_bulk(leased)
    for row in map(rows.__getitem__, leased):
        seconds_left = budget_seconds - (time.monotonic() - started)
        has_time = not results or seconds_left >= _MIN_CALL_SECONDS
        results.append((row, _revoke_row(row, now=now, timeout_seconds=seconds_left) if has_time else None))
    done_at = now + timedelta(seconds=time.monotonic() - started)
    return _save_results(results, now=done_at, give_up_after=give_up_after) if results else {}


def retry_due(
    *,
    clock: Callable[[], datetime],
    budget_seconds: float,
    timeout_seconds: float,
    give_up_after: timedelta,
    batch_size: int = 100,
) -> Counter[RevocationStatus]:
    """Try due revocations until none is left or the budget is used up; count the results. Sweeps may overlap."""
    ends_at = time.monotonic() + budget_seconds
    results: Counter[RevocationStatus] = Counter()
    while pks := list_due(now=clock(), limit=batch_size):
        for pk in pks:
            if time.monotonic() >= ends_at:
                return results
            now = clock()
            status = attempt_revocation(pk, now=now, timeout_seconds=timeout_seconds, give_up_after=give_up_after)
            if status:
                results[status] += 1
    return results


def has_provider_failed(revocation_ids: Sequence[uuid.UUID]) -> bool:
    """Return whether one of these revocations failed because the provider did not answer, or with a server error."""
    is_down = models.Q(last_fault__startswith="transport_") | models.Q(last_fault__startswith="http_5")
    return bool(revocation_ids) and PendingRevocation.objects.filter(is_down, pk__in=revocation_ids).exists()


def reset_backoff(*, now: datetime, revocation_ids: Sequence[uuid.UUID] | None = None) -> list[uuid.UUID]:
    """Make all pending revocations, or those of revocation_ids, due now and return their ids.

    Tokens that a session had before it was renewed are excluded: they are revoked when the session ends.
    """
    pending = PendingRevocation.objects.filter(status=RevocationStatus.PENDING, created_at__lte=now)
    if revocation_ids is not None:
        pending = pending.filter(pk__in=revocation_ids)
    pending.update(due_at=now)
    return list(pending.values_list("pk", flat=True))


@sensitive_variables()
def _revoke_row(row: PendingRevocation, *, now: datetime, timeout_seconds: float) -> RevocationAttemptResult:
    try:
        token = row._meta.get_field("token").decrypt(row)
        if token is None:
            raise Undecryptable
        request_secrets.register_secret(token, row.token_type_hint)
    except KeyRingError as error:
        return RevocationAttemptResult(status=RevocationStatus.PENDING, error_code=error.code, needs_operator=True)
    received = ReceivedToken(token_type_hint=cast(TokenTypeHint, row.token_type_hint), value=token)
    return revoke_at_provider(received, provider_name=row.provider, now=now, timeout_seconds=timeout_seconds)


@sensitive_variables()
def revoke_at_provider(
    token: ReceivedToken, *, provider_name: str, now: datetime, timeout_seconds: float
) -> RevocationAttemptResult:
    """Call the revocation endpoint once and return the result. Nothing is stored."""
    ends_at = time.monotonic() + timeout_seconds
    try:
        provider = get_provider(provider_name)
        metadata = provider.get_metadata(timeout_seconds=timeout_seconds)
        if not metadata.revocation_endpoint:
            return RevocationAttemptResult(status=RevocationStatus.UNSUPPORTED, error_code=Code.REVOCATION_UNSUPPORTED)
        request = build_revocation_request(
            metadata=metadata,
            declaration=provider.declaration,
            token=token.value,
            token_type_hint=token.token_type_hint,
            freshness=AssertionFreshness(now=now, jti=randomness.token_b64url(32)),
        )
        response = provider.transport.send(request, timeout_seconds=ends_at - time.monotonic())
    except AccountError as error:
        return RevocationAttemptResult(status=RevocationStatus.PENDING, error_code=error.code, needs_operator=True)
    except (TransportError, MetadataError) as error:
        return RevocationAttemptResult(status=RevocationStatus.PENDING, error_code=error.code)
    outcome = process_revocation_response(response)
    return RevocationAttemptResult(
        status=RevocationStatus(outcome.result if outcome.result in _FINAL_RESULTS else "pending"),
        # The provider's own text is not stored.
        error_code=_ERROR_CODES.get(outcome.result, f"http_{response.status}"),
        needs_operator=outcome.result == "retry_slowly",
        retry_after=outcome.retry_after,
    )


def _save_results(
    results: Sequence[tuple[PendingRevocation, RevocationAttemptResult | None]],
    *,
    now: datetime,
    give_up_after: timedelta,
) -> dict[uuid.UUID, RevocationStatus | None]:
    """Commit the results with their events, except for rows that another worker has leased since."""
    statuses: dict[uuid.UUID, RevocationStatus | None] = {}
    events: list[NewEvent] = []
    with transaction.atomic(durable=True):
        for row, result in results:
            # The number of attempts identifies the lease: each lease increments it.
            leased = PendingRevocation.objects.filter(pk=row.pk, attempts=row.attempts, status=RevocationStatus.PENDING)
            if result is None:
                leased.update(lease_until=None, attempts=models.F("attempts") - 1)
                statuses[row.pk] = None
                continue
            status, waited = result.status, now - row.created_at
            if status is RevocationStatus.PENDING and is_abandoned(waited=waited, give_up_after=give_up_after):
                status = RevocationStatus.ABANDONED
            statuses[row.pk] = status
            if leased.update(**_build_changes(row, result, status=status, now=now)):
                events += _build_attempt_events(row, result, status=status, now=now)
        enqueue_many(events)
    return statuses


def _build_changes(
    row: PendingRevocation, result: RevocationAttemptResult, *, status: RevocationStatus, now: datetime
) -> dict[str, Any]:
    changes: dict[str, Any] = {"status": status, "last_fault": result.error_code, "lease_until": None}
    if status is not RevocationStatus.PENDING:
        return {**changes, "finished_at": now, "token": None}
    wait = compute_backoff(
        attempts=row.attempts,
        needs_operator=result.needs_operator,
        retry_after=result.retry_after,
        jitter_fraction=int.from_bytes(randomness.token_bytes(4)) / 2**32,
    )
    return {**changes, "due_at": now + wait}


def _build_attempt_events(
    row: PendingRevocation, result: RevocationAttemptResult, *, status: RevocationStatus, now: datetime
) -> list[NewEvent]:
    """Return one event for the attempt, and an alert when an operator must act."""
    fields: dict[str, Any] = {
        "origin": Origin(session=str(row.session) if row.session else ""),
        "now": now,
        "provider": row.provider,
        "reason": result.error_code,
    }
    detail = {"hint": row.token_type_hint, "attempts": row.attempts, "status": status}
    if status is RevocationStatus.DONE:
        return [NewEvent(action=Action.TOKEN_REVOKED, detail=detail, **fields)]
    events = [NewEvent(action=Action.TOKEN_REVOCATION_FAILED, outcome="failure", detail=detail, **fields)]
    rules = {RevocationStatus.ABANDONED: "revocation_abandoned", RevocationStatus.REFUSED: "revocation_refused"}
    # A repeated error raises no further alert.
    is_newly_blocked = result.needs_operator and row.last_fault != result.error_code
    if rule := rules.get(status, "revocation_blocked" if is_newly_blocked else ""):
        events.append(NewEvent(action=Action.ALERT_RAISED, detail={"rule": rule}, **fields))
    return events
