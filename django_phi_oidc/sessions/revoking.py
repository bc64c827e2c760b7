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

from .. import entropy
from ..audit.events import Action, Origin
from ..audit.outbox import enqueue
from ..errors import KeyRingError, MetadataError, ProviderUnknown, RevocationUnsupported, TransportError, Undecryptable
from ..oidc.client_auth import Freshness
from ..oidc.revocation import build_revocation_request, judge_revocation_response
from ..oidc.token import ReceivedToken, TokenHint
from ..provider.registry import get_provider
from .models import Doomed, PendingRevocation, RevocationStatus
from .timeouts import back_off, is_over

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

    None: it is not to be tried now, being unknown, finished, not due, or with another worker. The row is leased by a
    committed compare-and-set, so two workers never try it at once; a killed one leaves it due when the lease ends.

    Requires: deadline below LEASE. Raises: RuntimeError inside an open transaction, which the call would hold open.
    """
    started = time.monotonic()
    with transaction.atomic(durable=True):
        leased = PendingRevocation.objects.due(now).filter(pk=pk)
        if not leased.update(lease_until=now + LEASE, attempts=models.F("attempts") + 1):
            return None
        row = PendingRevocation.objects.get(pk=pk)
    result = _call(row, now=now, deadline=deadline)
    return _write(row, result, now=now + timedelta(seconds=time.monotonic() - started), give_up_after=give_up_after)


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


def make_due(*, now: datetime) -> int:
    """Let every pending revocation be tried now, whatever its back-off says; return how many there are."""
    return PendingRevocation.objects.filter(status=RevocationStatus.PENDING).update(due_at=now)


@sensitive_variables()
def _call(row: PendingRevocation, *, now: datetime, deadline: float) -> Result:
    try:
        token = PendingRevocation._meta.get_field("token").open(row)
        if token is None:
            raise Undecryptable
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


def _write(row: PendingRevocation, result: Result, *, now: datetime, give_up_after: timedelta) -> RevocationStatus:
    """Commit the result with its events, unless the lease ran out and another worker has the row by now."""
    status = result.status
    if status is RevocationStatus.PENDING and is_over(waited=now - row.created_at, give_up_after=give_up_after):
        status = RevocationStatus.ABANDONED
    changes: dict[str, Any] = {"status": status, "last_fault": result.fault, "lease_until": None}
    if status is RevocationStatus.PENDING:
        fraction = int.from_bytes(entropy.token_bytes(4)) / 2**32
        changes["due_at"] = now + back_off(
            attempts=row.attempts, slowly=result.slowly, asked=result.asked, fraction=fraction
        )
    else:
        changes |= {"finished_at": now, "token": None}
    with transaction.atomic(durable=True):
        ours = PendingRevocation.objects.filter(pk=row.pk, attempts=row.attempts, status=RevocationStatus.PENDING)
        if ours.update(**changes):
            _tell(row, result, status=status, now=now)
    return status


def _tell(row: PendingRevocation, result: Result, *, status: RevocationStatus, now: datetime) -> None:
    """Put the events of this attempt into the outbox: always one, and an alert when a person must know."""
    told: dict[str, Any] = {
        "origin": Origin(session=str(row.session) if row.session else ""),
        "now": now,
        "provider": row.provider,
        "reason": result.fault,
    }
    detail = {"hint": row.token_type_hint, "attempts": row.attempts, "status": status}
    if status is RevocationStatus.DONE:
        enqueue(Action.TOKEN_REVOKED, detail=detail, **told)
        return
    enqueue(Action.TOKEN_REVOCATION_FAILED, outcome="failure", detail=detail, **told)
    if rule := _alert(row, result, status=status):
        enqueue(Action.ALERT_RAISED, detail={"rule": rule}, **told)


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
