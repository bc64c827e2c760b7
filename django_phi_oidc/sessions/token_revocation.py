"""A token dies at the OP: one attempt, judged and written down. Due times lie in the table. Spec: RFC 7009."""

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
from ..errors import (
    KeyRingError,
    MetadataError,
    ProviderUnknown,
    RevocationUnsupported,
    TransportError,
    Undecryptable,
)
from ..oidc.client_auth import AssertionFreshness
from ..oidc.revocation import build_revocation_request, process_revocation_response
from ..oidc.token import ReceivedToken, TokenTypeHint
from ..provider.registry import get_provider
from .models import PendingRevocation, RevocationStatus, TokenToRevoke
from .timeouts import is_abandoned

_MIN_CALL_SECONDS = 0.05
LEASE_DURATION = timedelta(seconds=30)
"""How long a row is one worker's; longer than any deadline of a call."""
_FINAL_STATUSES = {
    "done": RevocationStatus.DONE,
    "unsupported": RevocationStatus.UNSUPPORTED,
    "refused": RevocationStatus.REFUSED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationAttemptResult:
    """What an attempt came to."""

    status: RevocationStatus
    error_code: str = ""
    """A code; empty when the token is dead."""
    needs_operator: bool = False
    """A person must mend something before another attempt makes sense."""
    retry_after: timedelta | None = None
    """The OP's Retry-After."""


@sensitive_variables()
def queue_revocations(
    tokens: Sequence[ReceivedToken], *, provider: str, session_id: uuid.UUID | None = None, now: datetime
) -> tuple[uuid.UUID, ...]:
    """Write one PendingRevocation for each token, due at once, in one INSERT; return their ids in the same order."""
    doomed = [TokenToRevoke(token=token, provider=provider, session_id=session_id) for token in tokens]
    return PendingRevocation.objects.queue(doomed, now=now)


def list_due(*, now: datetime, limit: int) -> list[uuid.UUID]:
    """Return the revocations whose time has come, the longest due first; a refresh token before its access token."""
    rows = PendingRevocation.objects.due(now).order_by("due_at", "-token_type_hint", "id")
    return list(rows.values_list("id", flat=True)[:limit])


def attempt_revocation(
    revocation_id: uuid.UUID, *, now: datetime, timeout_seconds: float, give_up_after: timedelta
) -> RevocationStatus | None:
    """Try to revoke the token at the OP within deadline seconds, and write down what came of it, with its events.

    None: it is not to be tried now, being unknown, finished, not due, or with another worker. As `attempt_all`.
    """
    return attempt_revocations(
        [revocation_id], now=now, budget_seconds=timeout_seconds, give_up_after=give_up_after
    ).get(revocation_id)


def attempt_revocations(
    revocation_ids: Sequence[uuid.UUID], *, now: datetime, budget_seconds: float, give_up_after: timedelta
) -> dict[uuid.UUID, RevocationStatus | None]:
    """Try to revoke these tokens in their order, within seconds for all, and write down together what came of it.

    Returns what became of each that was to be tried; None: there was no time. The rows are leased by a committed
    compare-and-set, so two workers never try one at once; a killed one leaves them due when the lease ends.

    Requires: seconds below LEASE. Raises: RuntimeError inside an open transaction, which the calls would hold open.
    """
    started = time.monotonic()
    rows = _lease_rows(revocation_ids, now=now)
    results: list[tuple[PendingRevocation, RevocationAttemptResult | None]] = []
    for row in rows:
        left = budget_seconds - (time.monotonic() - started)
        is_first = not results
        has_time = is_first or left >= _MIN_CALL_SECONDS
        results.append((row, _revoke_row(row, now=now, timeout_seconds=left) if has_time else None))
    done_at = now + timedelta(seconds=time.monotonic() - started)
    return _save_results(results, now=done_at, give_up_after=give_up_after) if results else {}


def _lease_rows(revocation_ids: Sequence[uuid.UUID], *, now: datetime) -> list[PendingRevocation]:
    """Return those of the rows that are ours from now on, in the order of pks."""
    with transaction.atomic(durable=True):
        due = PendingRevocation.objects.due(now)
        lease = {"lease_until": now + LEASE_DURATION, "attempts": models.F("attempts") + 1}
        leased = [pk for pk in revocation_ids if due.filter(pk=pk).update(**lease)]
        rows = PendingRevocation.objects.in_bulk(leased)
    return [rows[pk] for pk in leased]


def retry_due(
    *,
    clock: Callable[[], datetime],
    budget_seconds: float,
    timeout_seconds: float,
    give_up_after: timedelta,
    batch_size: int = 100,
) -> Counter[RevocationStatus]:
    """Try what is due, limit rows at a time, until nothing is or seconds have passed; return how each attempt ended.

    Safe beside other sweeps, and safe to kill.
    """
    ends_at = time.monotonic() + budget_seconds
    results: Counter[RevocationStatus] = Counter()
    while pks := list_due(now=clock(), limit=batch_size):
        for pk in pks:
            if time.monotonic() >= ends_at:
                return results
            if status := attempt_revocation(
                pk, now=clock(), timeout_seconds=timeout_seconds, give_up_after=give_up_after
            ):
                results[status] += 1
    return results


def reset_backoff(*, now: datetime, revocation_ids: Sequence[uuid.UUID] | None = None) -> list[uuid.UUID]:
    """Let every pending revocation be tried now, whatever its back-off says; return which. among: these alone.

    What a session held before it was renewed waits for the session's end.
    """
    pending = PendingRevocation.objects.filter(status=RevocationStatus.PENDING, created_at__lte=now)
    if revocation_ids is not None:
        pending = pending.filter(pk__in=revocation_ids)
    pending.update(due_at=now)
    return list(pending.values_list("pk", flat=True))


@sensitive_variables()
def _revoke_row(row: PendingRevocation, *, now: datetime, timeout_seconds: float) -> RevocationAttemptResult:
    try:
        token = PendingRevocation._meta.get_field("token").decrypt(row)
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
    """Return what one call to the revocation endpoint, of at most deadline seconds, came to. Nothing is written."""
    ends_at = time.monotonic() + timeout_seconds
    try:
        provider = get_provider(provider_name)
        metadata = provider.get_metadata(timeout_seconds=timeout_seconds)
        if not metadata.revocation_endpoint:
            return RevocationAttemptResult(status=RevocationStatus.UNSUPPORTED, error_code=RevocationUnsupported.code)
        request = build_revocation_request(
            metadata=metadata,
            declaration=provider.declaration,
            token=token.value,
            token_type_hint=token.token_type_hint,
            freshness=AssertionFreshness(now=now, jti=randomness.token_b64url(32)),
        )
        response = provider.transport.send(request, timeout_seconds=ends_at - time.monotonic())
    except ProviderUnknown as error:
        return RevocationAttemptResult(status=RevocationStatus.PENDING, error_code=error.code, needs_operator=True)
    except (TransportError, MetadataError) as error:
        return RevocationAttemptResult(status=RevocationStatus.PENDING, error_code=error.code)
    outcome = process_revocation_response(response)
    return RevocationAttemptResult(
        status=_FINAL_STATUSES.get(outcome.result, RevocationStatus.PENDING),
        error_code="" if outcome.result == "done" else _get_error_code(outcome.result, response.status),
        needs_operator=outcome.result == "retry_slowly",
        retry_after=outcome.retry_after,
    )


def _save_results(
    results: Sequence[tuple[PendingRevocation, RevocationAttemptResult | None]],
    *,
    now: datetime,
    give_up_after: timedelta,
) -> dict[uuid.UUID, RevocationStatus | None]:
    """Commit the results with their events, but for rows whose lease ran out and that another worker has by now."""
    statuses: dict[uuid.UUID, RevocationStatus | None] = {}
    acts: list[NewEvent] = []
    with transaction.atomic(durable=True):
        for row, result in results:
            ours = PendingRevocation.objects.filter(pk=row.pk, attempts=row.attempts, status=RevocationStatus.PENDING)
            if result is None:
                ours.update(lease_until=None, attempts=models.F("attempts") - 1)
                statuses[row.pk] = None
                continue
            status = _resolve_status(row, result, now=now, give_up_after=give_up_after)
            statuses[row.pk] = status
            if ours.update(**_build_changes(row, result, status=status, now=now)):
                acts += _build_attempt_events(row, result, status=status, now=now)
        enqueue_many(acts)
    return statuses


def _resolve_status(
    row: PendingRevocation, result: RevocationAttemptResult, *, now: datetime, give_up_after: timedelta
) -> RevocationStatus:
    is_pending = result.status is RevocationStatus.PENDING
    if is_pending and is_abandoned(waited=now - row.created_at, give_up_after=give_up_after):
        return RevocationStatus.ABANDONED
    return result.status


def _build_changes(
    row: PendingRevocation, result: RevocationAttemptResult, *, status: RevocationStatus, now: datetime
) -> dict[str, Any]:
    changes: dict[str, Any] = {"status": status, "last_fault": result.error_code, "lease_until": None}
    if status is not RevocationStatus.PENDING:
        return {**changes, "finished_at": now, "token": None}
    fraction = int.from_bytes(randomness.token_bytes(4)) / 2**32
    wait = compute_backoff(
        attempts=row.attempts,
        needs_operator=result.needs_operator,
        retry_after=result.retry_after,
        jitter_fraction=fraction,
    )
    return {**changes, "due_at": now + wait}


def _build_attempt_events(
    row: PendingRevocation, result: RevocationAttemptResult, *, status: RevocationStatus, now: datetime
) -> list[NewEvent]:
    """Return what is to be told of this attempt: always one event, and an alert when a person must know."""
    told: dict[str, Any] = {
        "origin": Origin(session=str(row.session) if row.session else ""),
        "now": now,
        "provider": row.provider,
        "reason": result.error_code,
    }
    detail = {"hint": row.token_type_hint, "attempts": row.attempts, "status": status}
    if status is RevocationStatus.DONE:
        return [NewEvent(action=Action.TOKEN_REVOKED, detail=detail, **told)]
    acts = [NewEvent(action=Action.TOKEN_REVOCATION_FAILED, outcome="failure", detail=detail, **told)]
    if rule := _find_alert_rule(row, result, status=status):
        acts.append(NewEvent(action=Action.ALERT_RAISED, detail={"rule": rule}, **told))
    return acts


def _find_alert_rule(row: PendingRevocation, result: RevocationAttemptResult, *, status: RevocationStatus) -> str:
    """Return the rule of the alert that this result raises, or nothing: the same fault again is no news."""
    if status is RevocationStatus.ABANDONED:
        return "revocation_abandoned"
    if status is RevocationStatus.REFUSED:
        return "revocation_refused"
    return "revocation_blocked" if result.needs_operator and row.last_fault != result.error_code else ""


def _get_error_code(verdict: str, http_status: int) -> str:
    """Return a code for what the OP answered; its own words are not kept."""
    named = {"unsupported": "unsupported_token_type", "retry_slowly": "invalid_client"}
    return named.get(verdict, f"http_{http_status}")
