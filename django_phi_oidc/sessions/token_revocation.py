"""Revoke tokens at the provider. Attempts, due times and results are stored in `PendingRevocation`.
Spec: RFC 7009.
"""

import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, cast

from django.db import models, transaction
from django.views.decorators.debug import sensitive_variables

from .. import conf
from .._internal import randomness
from .._internal.retry import compute_backoff
from .._internal.sql import delete_in_batches
from ..audit.events import Action, NewEvent, Origin
from ..audit.outbox import enqueue_many
from ..crypto import keyring
from ..errors import AccountError, Code, KeyRingError, MetadataError, RuleCode, TransportError
from ..oidc.client_auth import AssertionFreshness
from ..oidc.remedies import get_remedy
from ..oidc.revocation import build_revocation_request, process_revocation_response
from ..oidc.token import ReceivedToken, TokenTypeHint
from ..provider.call_limit import get_max_background_calls
from ..provider.registry import get_provider
from .digests import compute_token_digest
from .models import (
    REVOCATION_LEASE,
    PendingRevocation,
    PendingRevocationQuerySet,
    RevocationStatus,
    TokenToRevoke,
)

logger = logging.getLogger("django_phi_oidc.sessions")
_MIN_CALL_SECONDS = 0.05
_CLOCK_DIFFERENCE = timedelta(minutes=1)
"""Between two servers of the portal."""
LEASE_DURATION = REVOCATION_LEASE
BATCH_SIZE = 200
"""Revocations that a sweep leases and saves together."""
GROWTH = 8
MIN_ATTEMPTS = 10
"""Before a revocation is abandoned. The time alone decides nothing: the workers may have been down
for most of it.
"""
_RETRY_FIELDS = (
    *("last_fault", "lease_until", "due_at", "provider_busy_until", "first_attempt_at"),
    *("blocked_until", "missing_key"),
)
_FINAL_RESULTS = ("done", "unsupported", "refused")
_ERROR_CODES = {
    "done": "",
    "unsupported": "unsupported_token_type",
    "retry_slowly": "invalid_client",
}


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
    missing_key: str = ""
    """The id of that key, unless the ciphertext names none."""
    retry_after: timedelta | None = None
    """The provider's Retry-After."""

    @property
    def is_fault_of_process(self) -> bool:
        """Whether another process may have the key, or declare the provider."""
        return bool(self.missing_key) or self.error_code == Code.PROVIDER_UNKNOWN

    @property
    def fault(self) -> str:
        """The error code, and the provider's own if it is another one."""
        return " ".join(dict.fromkeys(filter(None, (self.error_code, self.provider_error))))


@sensitive_variables()
def queue_revocations(
    tokens: Sequence[ReceivedToken],
    *,
    provider: str,
    session_id: uuid.UUID | None = None,
    now: datetime,
) -> tuple[uuid.UUID, ...]:
    """Create a PendingRevocation that is due at once for each token; return their ids in the order
    of tokens.
    """
    to_revoke = []
    for token in tokens:
        to_revoke.append(TokenToRevoke(token=token, provider=provider, session_id=session_id))
    return PendingRevocation.objects.queue(to_revoke, now=now)


def attempt_revocations(
    revocation_ids: Sequence[uuid.UUID],
    *,
    leased: Sequence[PendingRevocation] = (),
    now: datetime,
    budget_seconds: float,
    give_up_after: timedelta,
) -> dict[uuid.UUID, RevocationStatus | None]:
    """Try to revoke these tokens in this order, and store all results with their events together.

    Returns the status of each revocation that was leased, which it is not if it is unknown,
    finished, not due, or leased already; None: the budget was used up before. The leases are
    committed
    first, so two workers never try the same row, and the rows of a killed worker are due again when
    its leases end.
    leased: those of the rows that were created with a lease of the caller.
    Requires: budget_seconds below LEASE_DURATION. Raises: RuntimeError inside an open transaction,
    because the calls would keep it open.
    """
    started = time.monotonic()
    # A lease that may end during the calls, because the caller's transaction took long, is acquired
    # again.
    ends_at = now + timedelta(seconds=budget_seconds)
    rows = {}
    for row in leased:
        if row.lease_until and row.lease_until >= ends_at:
            rows[row.pk] = row

    unleased = [pk for pk in revocation_ids if pk not in rows]
    if unleased:
        with transaction.atomic(durable=True):
            for row in PendingRevocation.objects.filter(pk__in=unleased).lease_due(now=now):
                rows[row.pk] = row

    attempts: list[_Attempt] = []
    for pk in revocation_ids:
        if pk not in rows:
            continue
        row = rows[pk]
        seconds_left = budget_seconds - (time.monotonic() - started)
        has_time = not attempts or seconds_left >= _MIN_CALL_SECONDS
        result = None
        if has_time:
            result = _revoke_row(row, now=now, timeout_seconds=seconds_left)

        attempts.append(_Attempt(row=row, result=result, seconds=time.monotonic() - started))
    return _save_results(attempts, leased_at=now, give_up_after=give_up_after)


def retry_due(
    *,
    clock: Callable[[], datetime],
    budget_seconds: float,
    timeout_seconds: float,
    give_up_after: timedelta,
    rows: PendingRevocationQuerySet | None = None,
    batch_size: int = BATCH_SIZE,
    report_progress: Callable[[int], None] = lambda tried: None,
) -> Counter[RevocationStatus]:
    """Try the due revocations until none is left or the budget is used up, and count the results.
    Sweeps may overlap.

    Providers share the time equally, so that none waits for another one: the next batch is for the
    provider that has used the least time. Its first batch is one token, and each further one has at
    most GROWTH times as many as the last one tried; at most `get_max_background_calls` requests are
    sent at once. No request begins after timeout_seconds, or the provider's share of the budget if
    that is less, and none takes longer than that. A provider that is unavailable or asks to wait is
    left after that batch: its other revocations stay due. So is one whose first revocation becomes
    due during the sweep, or that has asked for no request yet.

    rows: only these; None means all. report_progress: called after each batch with the number of
    attempts.
    Requires: twice timeout_seconds below LEASE_DURATION. Raises: RuntimeError inside an open
    transaction.
    """
    ends_at = time.monotonic() + budget_seconds

    if rows is None:
        rows = PendingRevocation.objects.all()

    due = _select_ready(rows, now=clock()).due(clock())
    used_seconds = dict.fromkeys(
        due.order_by("provider").values_list("provider", flat=True).distinct(), 0.0
    )
    sizes = dict.fromkeys(used_seconds, 1)
    timeout_seconds = min(timeout_seconds, budget_seconds / (len(used_seconds) or 1))
    statuses: Counter[RevocationStatus] = Counter()
    with ExitStack() as stack:
        executors = {}
        for name in used_seconds:
            executor = ThreadPoolExecutor(_get_max_calls(name))
            executors[name] = stack.enter_context(executor)

        while used_seconds and (started := time.monotonic()) < ends_at:
            name = min(used_seconds, key=used_seconds.__getitem__)
            now = clock()
            with transaction.atomic(durable=True):
                ready = _select_ready(rows.filter(provider=name), now=now)
                leased = ready.lease_due(now=now, limit=sizes[name])
            attempts = _call_concurrently(
                leased, executor=executors[name], now=now, timeout_seconds=timeout_seconds
            )
            saved = _save_results(attempts, leased_at=now, give_up_after=give_up_after)
            for status in saved.values():
                if status:
                    statuses[status] += 1
            report_progress(statuses.total())
            used_seconds[name] += time.monotonic() - started
            tried = []
            for attempt in attempts:
                if attempt.result:
                    tried.append(attempt.result)
            sizes[name] = min(GROWTH * len(tried), batch_size)
            if not tried or any(result.is_provider_unavailable for result in tried):
                del used_seconds[name]
    return statuses


def _select_ready(rows: PendingRevocationQuerySet, *, now: datetime) -> PendingRevocationQuerySet:
    """Leave out the rows that this process cannot try, and those whose provider asked to wait."""
    try:
        key_ids = [key.id for key in keyring.get_keys("encryption")]
    except KeyRingError:
        key_ids = []
    return rows.at_ready_providers(now).not_blocked(
        now, key_ids=key_ids, providers=list(conf.providers())
    )


def _get_max_calls(provider: str) -> int:
    declaration = conf.providers().get(provider)
    if declaration:
        return get_max_background_calls(declaration.max_concurrent_calls)
    return 1


@sensitive_variables("token")
def is_revoked(token: str, *, now: datetime) -> bool:
    """Return whether this portal has revoked that access token, or tries to.

    NOT known: tokens that others revoked at the provider, and those that a renewed or refreshed
    session had before, until it ends.
    """
    rows = PendingRevocation.objects.filter(token_digest=compute_token_digest(token))
    return rows.filter(created_at__lte=now + _CLOCK_DIFFERENCE).exists()


def delete_finished_revocations(*, before: datetime, now: datetime) -> int:
    """Delete the revocations that were finished before that time; return their number.

    Those whose access token an API of the portal would still accept stay, so that `is_revoked`
    knows them.
    """
    for provider in conf.providers().values():
        before = min(before, now - provider.max_access_token_lifetime - 2 * provider.leeway)
    # The id begins with the time of creation and has an index; finished_at has none.
    created = PendingRevocation.objects.filter(pk__lt=randomness.lowest_uuid7(before))
    return delete_in_batches(created.filter(finished_at__lt=before))


def has_provider_failed(revocations: Sequence[PendingRevocation]) -> bool:
    """Return whether the provider answered none of these revocations, or with server errors only.

    A suspended provider has just not answered other calls. One that has finished a revocation is
    only slow, although there was no time for the next one.
    """
    if any(row.status != RevocationStatus.PENDING for row in revocations):
        return False
    return any(_is_provider_fault(row.last_fault) for row in revocations)


def _is_provider_fault(fault: str) -> bool:
    return fault == Code.PROVIDER_SUSPENDED or fault.startswith(("transport_", "http_5"))


def reset_backoff(
    *, now: datetime, revocation_ids: Sequence[uuid.UUID] | None = None
) -> list[uuid.UUID]:
    """Make all pending revocations, or those of revocation_ids, due now and return their ids.

    Tokens that a session had before it was renewed or refreshed are excluded: they are revoked when
    the session ends.
    """
    pending = PendingRevocation.objects.filter(status=RevocationStatus.PENDING, created_at__lte=now)
    if revocation_ids is not None:
        pending = pending.filter(pk__in=revocation_ids)
    pending.update(due_at=now, provider_busy_until=None, blocked_until=None)
    return list(pending.values_list("pk", flat=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    row: PendingRevocation
    """As it was leased."""
    result: RevocationAttemptResult | None
    """None: the provider was not asked for this token."""
    seconds: float
    """From the lease to the result."""


def _call_concurrently(
    rows: Sequence[PendingRevocation], *, executor: Executor, now: datetime, timeout_seconds: float
) -> list[_Attempt]:
    """Call the provider for each row in this order. After timeout_seconds, or once it is
    unavailable, begin no call.
    """
    started = time.monotonic()
    is_unavailable = threading.Event()
    context = copy_context()

    def attempt(row: PendingRevocation) -> _Attempt:
        result = None
        is_late = row is not rows[0] and time.monotonic() - started >= timeout_seconds
        if not is_late and not is_unavailable.is_set():
            result = _revoke_row(row, now=now, timeout_seconds=timeout_seconds, is_background=True)
            if result.is_provider_unavailable:
                is_unavailable.set()
        return _Attempt(row=row, result=result, seconds=time.monotonic() - started)

    # Each in a copy: the threads have the context of this one, such as the secrets of the task.
    return list(executor.map(lambda row: context.copy().run(attempt, row), rows))


@sensitive_variables()
def _revoke_row(
    row: PendingRevocation, *, now: datetime, timeout_seconds: float, is_background: bool = False
) -> RevocationAttemptResult:
    try:
        token = row.decrypt_token()
    except KeyRingError as error:
        if error.is_key_missing:
            error_code: RuleCode = Code.KEY_MISSING
        else:
            error_code = error.code
        return RevocationAttemptResult(
            status=RevocationStatus.PENDING,
            error_code=error_code,
            needs_operator=True,
            is_key_missing=error.is_key_missing,
            missing_key=row.get_key_id() if error.is_key_missing else "",
        )
    received = ReceivedToken(token_type_hint=cast(TokenTypeHint, row.token_type_hint), value=token)
    return revoke_at_provider(
        received,
        provider_name=row.provider,
        now=now,
        timeout_seconds=timeout_seconds,
        is_background=is_background,
    )


@sensitive_variables()
def revoke_at_provider(
    token: ReceivedToken,
    *,
    provider_name: str,
    now: datetime,
    timeout_seconds: float,
    is_background: bool = False,
) -> RevocationAttemptResult:
    """Call the revocation endpoint once and return the result. Nothing is stored. is_background:
    see `call_limit`.
    """
    ends_at = time.monotonic() + timeout_seconds
    try:
        provider = get_provider(provider_name)
        metadata = provider.get_metadata(timeout_seconds=timeout_seconds)
        if not metadata.revocation_endpoint and metadata.is_partial:
            raise MetadataError(Code.METADATA_INVALID)
        if not metadata.revocation_endpoint:
            return RevocationAttemptResult(
                status=RevocationStatus.UNSUPPORTED, error_code=Code.REVOCATION_UNSUPPORTED
            )
        request = build_revocation_request(
            metadata=metadata,
            declaration=provider.declaration,
            token=token.value,
            token_type_hint=token.token_type_hint,
            freshness=AssertionFreshness(now=now, jti=randomness.token_b64url(32)),
        )
        request = replace(request, is_background=is_background)
        response = provider.transport.send(request, timeout_seconds=ends_at - time.monotonic())
    except AccountError as error:
        return RevocationAttemptResult(
            status=RevocationStatus.PENDING, error_code=error.code, needs_operator=True
        )
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
    attempts: Sequence[_Attempt], *, leased_at: datetime, give_up_after: timedelta
) -> dict[uuid.UUID, RevocationStatus | None]:
    """Commit the results with their events, except for rows that another worker has leased since.

    Rows with the same result and number of attempts are saved together, by one statement or two.
    """
    statuses: dict[uuid.UUID, RevocationStatus | None] = {}
    if not attempts:
        return statuses
    events: list[NewEvent] = []
    # All results are saved together, when the last attempt has ended.
    now = leased_at + timedelta(seconds=max(attempt.seconds for attempt in attempts))
    equal: dict[Any, list[PendingRevocation]] = {}
    for attempt in attempts:
        row = attempt.row
        result = attempt.result
        status = None
        if result:
            status = _get_new_status(row, result, now=now, give_up_after=give_up_after)

        statuses[row.pk] = status
        equal.setdefault((result, status, row.attempts), []).append(row)
    with transaction.atomic(durable=True):
        for (result, status, _), rows in equal.items():
            if result is None:
                _filter_leased(rows).update(lease_until=None, attempts=models.F("attempts") - 1)
                continue
            for row in _save_result(rows, result, status=status, now=now):
                events += _build_attempt_events(row, result, status=status, now=now)
                row.last_fault = result.fault
                row.status = status
        enqueue_many(events)
    for event in events:
        if event.action == Action.ALERT_RAISED:
            _log_alert(event)
    return statuses


def _save_result(
    rows: Sequence[PendingRevocation],
    result: RevocationAttemptResult,
    *,
    status: RevocationStatus,
    now: datetime,
) -> list[PendingRevocation]:
    """Save the result of rows of the same number of attempts; return those that no other worker has
    leased since.
    """
    leased = _filter_leased(rows)
    if status is RevocationStatus.PENDING:
        pks = set(leased.order_by("pk").lock().values_list("pk", flat=True))
        saved = []
        for row in rows:
            if row.pk in pks:
                saved.append(row)
        PendingRevocation.objects.bulk_update(
            [_schedule_retry(row, result, now=now) for row in saved], _RETRY_FIELDS
        )
        return saved
    cleared = dict.fromkeys(
        ("lease_until", "provider_busy_until", "blocked_until", "token", "session_token")
    )
    count = leased.update(
        status=status, last_fault=result.fault, missing_key="", finished_at=now, **cleared
    )
    if count in (0, len(rows)):
        return list(rows[:count])
    pks = set(
        PendingRevocation.objects.filter(
            pk__in=[row.pk for row in rows], status=status, last_fault=result.fault, finished_at=now
        ).values_list("pk", flat=True)
    )
    return [row for row in rows if row.pk in pks]


def _filter_leased(rows: Sequence[PendingRevocation]) -> PendingRevocationQuerySet:
    """Return those of these rows, of the same number of attempts, that no other worker has leased
    since.
    """
    # The number of attempts identifies the lease: each lease increments it.
    pks = [row.pk for row in rows]
    return PendingRevocation.objects.filter(
        pk__in=pks, attempts=rows[0].attempts, status=RevocationStatus.PENDING
    )


def _get_new_status(
    row: PendingRevocation,
    result: RevocationAttemptResult,
    *,
    now: datetime,
    give_up_after: timedelta,
) -> RevocationStatus:
    can_abandon = result.status is RevocationStatus.PENDING and not result.is_key_missing
    is_abandoned = can_abandon and _is_abandoned(row, now=now, give_up_after=give_up_after)
    if is_abandoned:
        return RevocationStatus.ABANDONED
    return result.status


def _is_abandoned(row: PendingRevocation, *, now: datetime, give_up_after: timedelta) -> bool:
    waited = now - (row.first_attempt_at or now)
    return row.attempts >= MIN_ATTEMPTS and waited >= give_up_after


def _schedule_retry(
    row: PendingRevocation, result: RevocationAttemptResult, *, now: datetime
) -> PendingRevocation:
    """Return the row with the time of its next attempt. After a fault of this process, it stays due
    for the others.
    """
    wait = compute_backoff(
        attempts=row.attempts,
        needs_operator=result.needs_operator,
        retry_after=result.retry_after,
        jitter_fraction=int.from_bytes(randomness.token_bytes(4)) / 2**32,
    )
    due_at = now + wait
    blocked_until = None
    if result.is_fault_of_process:
        due_at = row.due_at
        blocked_until = now + wait
    return PendingRevocation(
        pk=row.pk,
        last_fault=result.fault,
        lease_until=None,
        due_at=due_at,
        blocked_until=blocked_until,
        missing_key=result.missing_key,
        provider_busy_until=now + result.retry_after if result.retry_after else None,
        # If the provider was not asked, this time does not count.
        first_attempt_at=None if result.is_key_missing else row.first_attempt_at,
    )


def _build_attempt_events(
    row: PendingRevocation,
    result: RevocationAttemptResult,
    *,
    status: RevocationStatus,
    now: datetime,
) -> list[NewEvent]:
    """Return one event for the attempt, and an alert when an operator must act."""
    if row.session:
        session = str(row.session)
    else:
        session = ""

    origin = Origin(session=session)

    if result.provider_error:
        provider_answer = {"provider_error": result.provider_error}
    else:
        provider_answer = {}

    detail = {
        "hint": row.token_type_hint,
        "attempts": row.attempts,
        "status": status,
        **provider_answer,
    }
    if status is RevocationStatus.DONE:
        return [
            NewEvent(
                action=Action.TOKEN_REVOKED,
                detail=detail,
                origin=origin,
                now=now,
                provider=row.provider,
                reason=result.error_code,
            )
        ]
    events = [
        NewEvent(
            action=Action.TOKEN_REVOCATION_FAILED,
            outcome="failure",
            detail=detail,
            origin=origin,
            now=now,
            provider=row.provider,
            reason=result.error_code,
        )
    ]
    rules = {
        RevocationStatus.ABANDONED: "revocation_abandoned",
        RevocationStatus.REFUSED: "revocation_refused",
    }
    # A repeated error raises no further alert.
    is_blocked = result.needs_operator or result.is_unexpected
    is_newly_blocked = is_blocked and row.last_fault != result.fault

    if result.error_code == Code.UNDECRYPTABLE:
        blocked_rule = "session_undecryptable"
    else:
        blocked_rule = "revocation_blocked"

    if rule := rules.get(status, blocked_rule if is_newly_blocked else ""):
        events.append(
            NewEvent(
                action=Action.ALERT_RAISED,
                detail={"rule": rule, **provider_answer},
                origin=origin,
                now=now,
                provider=row.provider,
                reason=result.error_code,
            )
        )
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
