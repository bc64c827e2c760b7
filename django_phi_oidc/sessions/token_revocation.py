"""Revoke tokens at the provider. Attempts, due times and results are stored in `PendingRevocation`. Spec: RFC 7009."""

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from django.db import models, transaction
from django.db.models.functions import Coalesce, Least
from django.views.decorators.debug import sensitive_variables

from .. import conf
from .._internal import randomness
from .._internal.retry import compute_backoff
from .._internal.sql import delete_in_batches
from ..audit.events import Action, NewEvent, Origin
from ..audit.outbox import enqueue_many
from ..errors import AccountError, Code, KeyRingError, MetadataError, TransportError
from ..oidc.client_auth import AssertionFreshness
from ..oidc.remedies import get_remedy
from ..oidc.revocation import build_revocation_request, process_revocation_response
from ..oidc.token import ReceivedToken, TokenTypeHint
from ..provider.registry import get_provider
from .models import REVOCATION_LEASE, PendingRevocation, RevocationStatus, TokenToRevoke, compute_token_digest

logger = logging.getLogger("django_phi_oidc.sessions")
_MIN_CALL_SECONDS = 0.05
_CLOCK_DIFFERENCE = timedelta(minutes=1)
"""Between two servers of the portal."""
LEASE_DURATION = REVOCATION_LEASE
MIN_ATTEMPTS = 10
"""Before a revocation is abandoned. The time alone decides nothing: the workers may have been down for most of it."""
_FINAL_RESULTS = ("done", "unsupported", "refused")
_ERROR_CODES = {"done": "", "unsupported": "unsupported_token_type", "retry_slowly": "invalid_client"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationAttemptResult:
    """The result of one attempt."""

    status: RevocationStatus
    error_code: str = ""
    """Empty when the token is revoked."""
    provider_error: str = ""
    """The provider's own error code, if it is registered, or `other`; empty if it sent none."""
    needs_operator: bool = False
    """Further attempts fail until an operator fixes something."""
    is_unexpected: bool = False
    """The response is not one of a revocation endpoint: an operator may have to fix something."""
    is_provider_unavailable: bool = False
    """Attempts for other tokens would fail as well, after as long a wait."""
    is_key_missing: bool = False
    """The token could not be decrypted, because its key was missing. It is not abandoned."""
    retry_after: timedelta | None = None
    """The provider's Retry-After."""

    @property
    def fault(self) -> str:
        """The error code, and the provider's own if it is another one."""
        return " ".join(dict.fromkeys(filter(None, (self.error_code, self.provider_error))))


@sensitive_variables()
def queue_revocations(
    tokens: Sequence[ReceivedToken], *, provider: str, session_id: uuid.UUID | None = None, now: datetime
) -> tuple[uuid.UUID, ...]:
    """Create a PendingRevocation that is due at once for each token; return their ids in the order of tokens."""
    to_revoke = [TokenToRevoke(token=token, provider=provider, session_id=session_id) for token in tokens]
    return PendingRevocation.objects.queue(to_revoke, now=now)


def list_due(provider: str, *, now: datetime, limit: int) -> list[uuid.UUID]:
    """Return the ids of a provider's due revocations, longest due first, a refresh token before its access token."""
    rows = PendingRevocation.objects.due(now).filter(provider=provider).order_by("due_at", "-token_type_hint", "id")
    return list(rows.values_list("id", flat=True)[:limit])


def attempt_revocations(
    revocation_ids: Sequence[uuid.UUID],
    *,
    leased: Sequence[PendingRevocation] = (),
    now: datetime,
    budget_seconds: float,
    give_up_after: timedelta,
) -> dict[uuid.UUID, RevocationStatus | None]:
    """Try to revoke these tokens in this order, and store all results with their events together.

    Returns the status of each revocation that was leased, which it is not if it is unknown, finished, not due, or
    leased already; None: the budget was used up before. The leases are committed
    first, so two workers never try the same row, and the rows of a killed worker are due again when its leases end.
    leased: those of the rows that were created with a lease of the caller.
    Requires: budget_seconds below LEASE_DURATION. Raises: RuntimeError inside an open transaction, because the calls
    would keep it open.
    """
    attempts = _lease_and_call(revocation_ids, leased=leased, now=now, budget_seconds=budget_seconds)
    return _save_results(attempts, give_up_after=give_up_after)


def retry_due(
    *,
    clock: Callable[[], datetime],
    budget_seconds: float,
    timeout_seconds: float,
    give_up_after: timedelta,
    batch_size: int = 100,
) -> Counter[RevocationStatus]:
    """Try due revocations as `attempt_by_provider` does, and count the results. Sweeps may overlap.

    A provider whose first revocation becomes due during the sweep is left to the next one.
    """

    def iter_due(provider: str) -> Iterator[uuid.UUID]:
        tried: set[uuid.UUID] = set()
        # A batch that was tried stays due only while other workers hold or lock all of it.
        while not tried.issuperset(pks := list_due(provider, now=clock(), limit=batch_size)):
            yield from pks
            tried.update(pks)

    providers = PendingRevocation.objects.due(clock()).order_by("provider").values_list("provider", flat=True)
    statuses = attempt_by_provider(
        {provider: iter_due(provider) for provider in providers.distinct()},
        clock=clock,
        budget_seconds=budget_seconds,
        timeout_seconds=timeout_seconds,
        give_up_after=give_up_after,
    )
    return Counter(status for status in statuses if status)


def attempt_by_provider(
    ids_by_provider: Mapping[str, Iterator[uuid.UUID]],
    *,
    clock: Callable[[], datetime],
    budget_seconds: float,
    timeout_seconds: float,
    give_up_after: timedelta,
) -> Iterator[RevocationStatus | None]:
    """Try these revocations until none is left or the budget is used up; yield each status. None: it was not leased.

    Providers share the time equally, so that none waits for another one: the next attempt is for the provider that has
    used the least time, with a time-out of its share of the budget at most. A provider that is unavailable is left
    after that attempt. Its other revocations stay due.
    """
    if not ids_by_provider:
        return
    ends_at = time.monotonic() + budget_seconds
    timeout_seconds = min(timeout_seconds, budget_seconds / len(ids_by_provider))
    used_seconds = dict.fromkeys(ids_by_provider, 0.0)
    while used_seconds and (started := time.monotonic()) < ends_at:
        provider = min(used_seconds, key=used_seconds.__getitem__)
        pk = next(ids_by_provider[provider], None)
        if pk is None:
            del used_seconds[provider]
            continue
        attempts = _lease_and_call([pk], now=clock(), budget_seconds=timeout_seconds)
        statuses = _save_results(attempts, give_up_after=give_up_after)
        used_seconds[provider] += time.monotonic() - started
        if any(attempt.result and attempt.result.is_provider_unavailable for attempt in attempts):
            del used_seconds[provider]
        yield statuses.get(pk)


@sensitive_variables("token")
def is_revoked(token: str, *, now: datetime) -> bool:
    """Return whether this portal has revoked that access token, or tries to.

    NOT known: tokens that others revoked at the provider, and those that could not be decrypted when their session
    ended. Tokens that a renewed session had before are revoked when it ends.
    """
    rows = PendingRevocation.objects.filter(token_digest=compute_token_digest(token))
    return rows.filter(created_at__lte=now + _CLOCK_DIFFERENCE).exists()


def delete_finished_revocations(*, before: datetime, now: datetime) -> int:
    """Delete the revocations that were finished before that time; return their number.

    Those whose access token an API of the portal would still accept stay, so that `is_revoked` knows them.
    """
    for provider in conf.providers().values():
        before = min(before, now - provider.max_access_token_lifetime - 2 * provider.leeway)
    # The id begins with the time of creation and has an index; finished_at has none.
    created = PendingRevocation.objects.filter(pk__lt=randomness.lowest_uuid7(before))
    return delete_in_batches(created.filter(finished_at__lt=before))


def has_provider_failed(revocations: Sequence[PendingRevocation]) -> bool:
    """Return whether one of these revocations failed because the provider did not answer, or with a server error.

    A suspended provider has just not answered other calls.
    """
    faults = [row.last_fault for row in revocations]
    return any(fault == Code.PROVIDER_SUSPENDED or fault.startswith(("transport_", "http_5")) for fault in faults)


def reset_backoff(*, now: datetime, revocation_ids: Sequence[uuid.UUID] | None = None) -> list[uuid.UUID]:
    """Make all pending revocations, or those of revocation_ids, due now and return their ids.

    Tokens that a session had before it was renewed are excluded: they are revoked when the session ends.
    """
    pending = PendingRevocation.objects.filter(status=RevocationStatus.PENDING, created_at__lte=now)
    if revocation_ids is not None:
        pending = pending.filter(pk__in=revocation_ids)
    pending.update(due_at=now)
    return list(pending.values_list("pk", flat=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    row: PendingRevocation
    """As it was leased."""
    result: RevocationAttemptResult | None
    """None: the budget was used up before."""
    done_at: datetime


def _lease_and_call(
    revocation_ids: Sequence[uuid.UUID],
    *,
    leased: Sequence[PendingRevocation] = (),
    now: datetime,
    budget_seconds: float,
) -> list[_Attempt]:
    """Lease these revocations, committed, and then call the provider for each; see `attempt_revocations`."""
    started = time.monotonic()
    rows = {row.pk: row for row in leased}
    if unleased := [pk for pk in revocation_ids if pk not in rows]:
        rows |= _lease(unleased, now=now)
    attempts: list[_Attempt] = []
    for row in [rows[pk] for pk in revocation_ids if pk in rows]:
        seconds_left = budget_seconds - (time.monotonic() - started)
        has_time = not attempts or seconds_left >= _MIN_CALL_SECONDS
        result = _revoke_row(row, now=now, timeout_seconds=seconds_left) if has_time else None
        done_at = now + timedelta(seconds=time.monotonic() - started)
        attempts.append(_Attempt(row=row, result=result, done_at=done_at))
    return attempts


def _lease(revocation_ids: Sequence[uuid.UUID], *, now: datetime) -> dict[uuid.UUID, PendingRevocation]:
    """Lease those of these revocations that are due, committed, and return them."""
    changes = {
        "attempts": models.F("attempts") + 1,
        # Not later than now: the clock of the first attempt may have been ahead.
        "first_attempt_at": Least(Coalesce("first_attempt_at", models.Value(now)), models.Value(now)),
    }
    with transaction.atomic(durable=True):
        due = PendingRevocation.objects.due(now)
        leased = [pk for pk in revocation_ids if due.acquire_lease(pk, now=now, lease=LEASE_DURATION, **changes)]
        return PendingRevocation.objects.in_bulk(leased)


@sensitive_variables()
def _revoke_row(row: PendingRevocation, *, now: datetime, timeout_seconds: float) -> RevocationAttemptResult:
    try:
        token = row.decrypt_token()
    except KeyRingError as error:
        return RevocationAttemptResult(
            status=RevocationStatus.PENDING,
            error_code=Code.KEY_MISSING if error.is_key_missing else error.code,
            needs_operator=True,
            is_key_missing=error.is_key_missing,
        )
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
        if not metadata.revocation_endpoint and metadata.is_partial:
            raise MetadataError(Code.METADATA_INVALID)
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
        return RevocationAttemptResult(
            status=RevocationStatus.PENDING, error_code=error.code, is_provider_unavailable=True
        )
    outcome = process_revocation_response(response)
    return RevocationAttemptResult(
        status=RevocationStatus(outcome.result if outcome.result in _FINAL_RESULTS else "pending"),
        error_code=_ERROR_CODES.get(outcome.result, f"http_{response.status}"),
        provider_error=outcome.error,
        needs_operator=outcome.result == "retry_slowly",
        is_unexpected=outcome.result == "unexpected",
        # Retry-After applies to all requests of a client.
        is_provider_unavailable=outcome.retry_after is not None,
        retry_after=outcome.retry_after,
    )


def _save_results(
    attempts: Sequence[_Attempt], *, give_up_after: timedelta
) -> dict[uuid.UUID, RevocationStatus | None]:
    """Commit the results with their events, except for rows that another worker has leased since."""
    statuses: dict[uuid.UUID, RevocationStatus | None] = {}
    if not attempts:
        return statuses
    events: list[NewEvent] = []
    # All results are saved together, when the last attempt has ended.
    now = attempts[-1].done_at
    equal: dict[Any, list[PendingRevocation]] = {}
    for attempt in attempts:
        row, result = attempt.row, attempt.result
        status = statuses[row.pk] = result and _get_new_status(row, result, now=now, give_up_after=give_up_after)
        equal.setdefault((result, status, row.attempts), []).append(row)
    with transaction.atomic(durable=True):
        for (result, status, _), rows in equal.items():
            if result is None:
                _update_leased(rows, lease_until=None, attempts=models.F("attempts") - 1)
                continue
            saved = _update_leased(rows, **_build_changes(rows[0], result, status=status, now=now))
            for row in saved:
                events += _build_attempt_events(row, result, status=status, now=now)
                row.last_fault = result.fault
        enqueue_many(events)
    for event in events:
        if event.action == Action.ALERT_RAISED:
            _log_alert(event)
    return statuses


def _update_leased(rows: Sequence[PendingRevocation], **changes: Any) -> list[PendingRevocation]:
    """Change rows of the same number of attempts; return them without those that another worker has leased since."""
    # The number of attempts identifies the lease: each lease increments it.
    leased = PendingRevocation.objects.filter(pk__in=[row.pk for row in rows], attempts=rows[0].attempts)
    changed = leased.filter(status=RevocationStatus.PENDING).update(**changes)
    if changed in (0, len(rows)):
        return list(rows[:changed])
    pks = set(leased.values_list("pk", flat=True))
    return [row for row in rows if row.pk in pks]


def _get_new_status(
    row: PendingRevocation, result: RevocationAttemptResult, *, now: datetime, give_up_after: timedelta
) -> RevocationStatus:
    can_abandon = result.status is RevocationStatus.PENDING and not result.is_key_missing
    is_abandoned = can_abandon and _is_abandoned(row, now=now, give_up_after=give_up_after)
    return RevocationStatus.ABANDONED if is_abandoned else result.status


def _is_abandoned(row: PendingRevocation, *, now: datetime, give_up_after: timedelta) -> bool:
    waited = now - (row.first_attempt_at or now)
    return row.attempts >= MIN_ATTEMPTS and waited >= give_up_after


def _build_changes(
    row: PendingRevocation, result: RevocationAttemptResult, *, status: RevocationStatus, now: datetime
) -> dict[str, Any]:
    changes: dict[str, Any] = {"status": status, "last_fault": result.fault, "lease_until": None}
    if status is not RevocationStatus.PENDING:
        return {**changes, "finished_at": now, "token": None, "session_token": None}
    if result.is_key_missing:
        # The provider was not asked, so this time does not count.
        changes["first_attempt_at"] = None
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
    provider_answer = {"provider_error": result.provider_error} if result.provider_error else {}
    detail = {"hint": row.token_type_hint, "attempts": row.attempts, "status": status, **provider_answer}
    if status is RevocationStatus.DONE:
        return [NewEvent(action=Action.TOKEN_REVOKED, detail=detail, **fields)]
    events = [NewEvent(action=Action.TOKEN_REVOCATION_FAILED, outcome="failure", detail=detail, **fields)]
    rules = {RevocationStatus.ABANDONED: "revocation_abandoned", RevocationStatus.REFUSED: "revocation_refused"}
    # A repeated error raises no further alert.
    is_blocked = result.needs_operator or result.is_unexpected
    is_newly_blocked = is_blocked and row.last_fault != result.fault
    if rule := rules.get(status, "revocation_blocked" if is_newly_blocked else ""):
        events.append(NewEvent(action=Action.ALERT_RAISED, detail={"rule": rule, **provider_answer}, **fields))
    return events


def _log_alert(event: NewEvent) -> None:
    """Log why a token was not revoked, and what to do."""
    detail = event.detail or {}
    provider_error = str(detail.get("provider_error", ""))
    logger.warning(
        "A token was not revoked: rule=%s reason=%s%s provider=%s. %s",
        detail["rule"],
        event.reason,
        f" provider_error={provider_error}" if provider_error else "",
        event.provider,
        get_remedy(event.reason, provider_error),
    )
