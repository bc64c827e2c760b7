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

from .. import entropy, secrecy
from ..audit.events import Act, Action, Origin
from ..audit.outbox import enqueue_many
from ..errors import KeyRingError, MetadataError, ProviderUnknown, RevocationUnsupported, TransportError, Undecryptable
from ..oidc.client_auth import Freshness
from ..oidc.revocation import build_revocation_request, judge_revocation_response
from ..oidc.token import ReceivedToken, TokenHint
from ..provider.registry import get_provider
from .models import Doomed, PendingRevocation, RevocationStatus
from .timeouts import back_off, is_over

_LEAST_SECONDS = 0.05
LEASE = timedelta(seconds=30)
"""How long a row is one worker's; longer than any deadline of a call."""
_FINAL = {
    "done": RevocationStatus.DONE,
    "unsupported": RevocationStatus.UNSUPPORTED,
    "refused": RevocationStatus.REFUSED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What an attempt came to."""

    status: RevocationStatus
    fault: str = ""
    """A code; empty when the token is dead."""
    slowly: bool = False
    """A person must mend something before another attempt makes sense."""
    asked: timedelta | None = None
    """The OP's Retry-After."""


@sensitive_variables()
def queue_revocations(
    tokens: Sequence[ReceivedToken], *, provider: str, session_id: uuid.UUID | None = None, now: datetime
) -> tuple[uuid.UUID, ...]:
    """Write one PendingRevocation for each token, due at once, in one INSERT; return their ids in the same order."""
    doomed = [Doomed(token=token, provider=provider, session=session_id) for token in tokens]
    return PendingRevocation.objects.queue(doomed, now=now)


def due(*, now: datetime, limit: int) -> list[uuid.UUID]:
    """Return the revocations whose time has come, the longest due first; a refresh token before its access token."""
    rows = PendingRevocation.objects.due(now).order_by("due_at", "-token_type_hint", "id")
    return list(rows.values_list("id", flat=True)[:limit])


def attempt(pk: uuid.UUID, *, now: datetime, deadline: float, give_up_after: timedelta) -> RevocationStatus | None:
    """Try to revoke the token at the OP within deadline seconds, and write down what came of it, with its events.

    None: it is not to be tried now, being unknown, finished, not due, or with another worker. As `attempt_all`.
    """
    return attempt_all([pk], now=now, seconds=deadline, give_up_after=give_up_after).get(pk)


def attempt_all(
    pks: Sequence[uuid.UUID], *, now: datetime, seconds: float, give_up_after: timedelta
) -> dict[uuid.UUID, RevocationStatus | None]:
    """Try to revoke these tokens in their order, within seconds for all, and write down together what came of it.

    Returns what became of each that was to be tried; None: there was no time. The rows are leased by a committed
    compare-and-set, so two workers never try one at once; a killed one leaves them due when the lease ends.

    Requires: seconds below LEASE. Raises: RuntimeError inside an open transaction, which the calls would hold open.
    """
    started = time.monotonic()
    rows = _lease(pks, now=now)
    results: list[tuple[PendingRevocation, Result | None]] = []
    for row in rows:
        left = seconds - (time.monotonic() - started)
        is_first = not results
        has_time = is_first or left >= _LEAST_SECONDS
        results.append((row, _call(row, now=now, deadline=left) if has_time else None))
    done_at = now + timedelta(seconds=time.monotonic() - started)
    return _write(results, now=done_at, give_up_after=give_up_after) if results else {}


def _lease(pks: Sequence[uuid.UUID], *, now: datetime) -> list[PendingRevocation]:
    """Return those of the rows that are ours from now on, in the order of pks."""
    with transaction.atomic(durable=True):
        due = PendingRevocation.objects.due(now)
        lease = {"lease_until": now + LEASE, "attempts": models.F("attempts") + 1}
        leased = [pk for pk in pks if due.filter(pk=pk).update(**lease)]
        rows = PendingRevocation.objects.in_bulk(leased)
    return [rows[pk] for pk in leased]


def sweep(
    *, clock: Callable[[], datetime], seconds: float, deadline: float, give_up_after: timedelta, limit: int = 100
) -> Counter[RevocationStatus]:
    """Try what is due, limit rows at a time, until nothing is or seconds have passed; return how each attempt ended.

    Safe beside other sweeps, and safe to kill.
    """
    ends_at = time.monotonic() + seconds
    results: Counter[RevocationStatus] = Counter()
    while pks := due(now=clock(), limit=limit):
        for pk in pks:
            if time.monotonic() >= ends_at:
                return results
            if status := attempt(pk, now=clock(), deadline=deadline, give_up_after=give_up_after):
                results[status] += 1
    return results


def make_due(*, now: datetime, among: Sequence[uuid.UUID] | None = None) -> list[uuid.UUID]:
    """Let every pending revocation be tried now, whatever its back-off says; return which. among: these alone.

    What a session held before it was renewed waits for the session's end.
    """
    pending = PendingRevocation.objects.filter(status=RevocationStatus.PENDING, created_at__lte=now)
    if among is not None:
        pending = pending.filter(pk__in=among)
    pending.update(due_at=now)
    return list(pending.values_list("pk", flat=True))


@sensitive_variables()
def _call(row: PendingRevocation, *, now: datetime, deadline: float) -> Result:
    try:
        token = PendingRevocation._meta.get_field("token").open(row)
        if token is None:
            raise Undecryptable
        secrecy.learn(token, row.token_type_hint)
    except KeyRingError as error:
        return Result(status=RevocationStatus.PENDING, fault=error.code, slowly=True)
    received = ReceivedToken(hint=cast(TokenHint, row.token_type_hint), value=token)
    return call_provider(received, provider_name=row.provider, now=now, deadline=deadline)


@sensitive_variables()
def call_provider(token: ReceivedToken, *, provider_name: str, now: datetime, deadline: float) -> Result:
    """Return what one call to the revocation endpoint, of at most deadline seconds, came to. Nothing is written."""
    ends_at = time.monotonic() + deadline
    try:
        provider = get_provider(provider_name)
        metadata = provider.metadata(deadline=deadline)
        if not metadata.revocation_endpoint:
            return Result(status=RevocationStatus.UNSUPPORTED, fault=RevocationUnsupported.code)
        request = build_revocation_request(
            metadata=metadata,
            declaration=provider.declaration,
            token=token.value,
            token_type_hint=token.hint,
            freshness=Freshness(now=now, jti=entropy.token_b64url(32)),
        )
        response = provider.transport.send(request, deadline=ends_at - time.monotonic())
    except ProviderUnknown as error:
        return Result(status=RevocationStatus.PENDING, fault=error.code, slowly=True)
    except (TransportError, MetadataError) as error:
        return Result(status=RevocationStatus.PENDING, fault=error.code)
    outcome = judge_revocation_response(response)
    return Result(
        status=_FINAL.get(outcome.verdict, RevocationStatus.PENDING),
        fault="" if outcome.verdict == "done" else _fault(outcome.verdict, response.status),
        slowly=outcome.verdict == "retry_slowly",
        asked=outcome.after,
    )


def _write(
    results: Sequence[tuple[PendingRevocation, Result | None]], *, now: datetime, give_up_after: timedelta
) -> dict[uuid.UUID, RevocationStatus | None]:
    """Commit the results with their events, but for rows whose lease ran out and that another worker has by now."""
    statuses: dict[uuid.UUID, RevocationStatus | None] = {}
    acts: list[Act] = []
    with transaction.atomic(durable=True):
        for row, result in results:
            ours = PendingRevocation.objects.filter(pk=row.pk, attempts=row.attempts, status=RevocationStatus.PENDING)
            if result is None:
                ours.update(lease_until=None, attempts=models.F("attempts") - 1)
                statuses[row.pk] = None
                continue
            status = _status(row, result, now=now, give_up_after=give_up_after)
            statuses[row.pk] = status
            if ours.update(**_changes(row, result, status=status, now=now)):
                acts += _acts(row, result, status=status, now=now)
        enqueue_many(acts)
    return statuses


def _status(row: PendingRevocation, result: Result, *, now: datetime, give_up_after: timedelta) -> RevocationStatus:
    is_pending = result.status is RevocationStatus.PENDING
    if is_pending and is_over(waited=now - row.created_at, give_up_after=give_up_after):
        return RevocationStatus.ABANDONED
    return result.status


def _changes(row: PendingRevocation, result: Result, *, status: RevocationStatus, now: datetime) -> dict[str, Any]:
    changes: dict[str, Any] = {"status": status, "last_fault": result.fault, "lease_until": None}
    if status is not RevocationStatus.PENDING:
        return {**changes, "finished_at": now, "token": None}
    fraction = int.from_bytes(entropy.token_bytes(4)) / 2**32
    wait = back_off(attempts=row.attempts, slowly=result.slowly, asked=result.asked, fraction=fraction)
    return {**changes, "due_at": now + wait}


def _acts(row: PendingRevocation, result: Result, *, status: RevocationStatus, now: datetime) -> list[Act]:
    """Return what is to be told of this attempt: always one event, and an alert when a person must know."""
    told: dict[str, Any] = {
        "origin": Origin(session=str(row.session) if row.session else ""),
        "now": now,
        "provider": row.provider,
        "reason": result.fault,
    }
    detail = {"hint": row.token_type_hint, "attempts": row.attempts, "status": status}
    if status is RevocationStatus.DONE:
        return [Act(action=Action.TOKEN_REVOKED, detail=detail, **told)]
    acts = [Act(action=Action.TOKEN_REVOCATION_FAILED, outcome="failure", detail=detail, **told)]
    if rule := _alert(row, result, status=status):
        acts.append(Act(action=Action.ALERT_RAISED, detail={"rule": rule}, **told))
    return acts


def _alert(row: PendingRevocation, result: Result, *, status: RevocationStatus) -> str:
    """Return the rule of the alert that this result raises, or nothing: the same fault again is no news."""
    if status is RevocationStatus.ABANDONED:
        return "revocation_abandoned"
    if status is RevocationStatus.REFUSED:
        return "revocation_refused"
    return "revocation_blocked" if result.slowly and row.last_fault != result.fault else ""


def _fault(verdict: str, status: int) -> str:
    """Return a code for what the OP answered; its own words are not kept."""
    named = {"unsupported": "unsupported_token_type", "retry_slowly": "invalid_client"}
    return named.get(verdict, f"http_{status}")
