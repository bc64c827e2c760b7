"""Send the newest checkpoint to the declared witnesses, and keep their cosignatures.

The requests run in parallel after the seal is committed, and end together at a deadline: a witness
that is away delays neither a seal nor the other witnesses. Only this thread uses the database.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections, transaction

from ..._internal import metrics, randomness
from ..._internal.retry import compute_backoff
from ...errors import Code, RuleCode, TransportError
from ...http.http_transport import create_ssl_context, send_on_new_connection
from ...http.transport import TransportRequest
from .. import conf
from ..declaration import WitnessDeclaration
from ..events import Action, Origin
from ..merkle.checkpoint import parse_checkpoint
from ..merkle.cosignature import WitnessKey
from ..merkle.proof import build_consistency_proof
from ..merkle.witness_protocol import (
    CONTRADICTIONS,
    MAX_RESPONSE_BYTES,
    REFUSALS,
    WitnessAnswer,
    WitnessFault,
    build_add_checkpoint_body,
    process_add_checkpoint_response,
)
from ..outbox import enqueue
from ..recorder import ALERT_INTERVAL
from ..router import AUDIT_ALIAS
from .cosigned_checkpoints import get_witness_keys
from .models import Cosignature, LogWitness
from .reader import read_checkpoints
from .tree_storage import read_nodes

ROUND_SECONDS = 2.0
"""For the requests to all witnesses together. There are at most two rounds."""
ALERT_AFTER = timedelta(minutes=15)
"""How long a witness may give no cosignature before an alert is raised."""
RENEW_AFTER = timedelta(hours=1)
"""A log without new events asks again: its witnesses would otherwise not notice that it was rolled
back.
"""
MAX_RETRY_DELAY = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionResult:
    """What a witness said."""

    witness: str
    """Its declared name."""
    fault: str = ""
    """A code; empty if it cosigned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _NewestCheckpoint:
    origin: str
    tree_size: int
    note: str


def submit_newest_checkpoint(
    *, clock: Callable[[], datetime], only_due: bool = True, round_seconds: float = ROUND_SECONDS
) -> list[SubmissionResult]:
    """Ask the witnesses that have not cosigned the newest checkpoint, and return what each said.

    A cosignature is stored as soon as it arrives. only_due: not those that failed a short time ago.
    Raises: KeyMissing; LogDamaged if the tree cannot be read; RuntimeError inside an open
    transaction.
    """
    if any(connections[alias].in_atomic_block for alias in (AUDIT_ALIAS, DEFAULT_DB_ALIAS)):
        raise RuntimeError("No request is sent to a witness inside a transaction.")
    keys = get_witness_keys()
    newest = None
    if keys:
        newest = _find_newest_checkpoint()

    if newest is None:
        return []
    asked = {}
    for name in keys:
        state = _get_state(name, now=clock())
        if _lacks(state, newest, now=clock()) and (_is_due(state, now=clock()) or not only_due):
            asked[state.name] = state
    sizes = {name: _get_known_size(state, newest) for name, state in asked.items()}
    results: list[SubmissionResult] = []
    other_sizes: dict[str, int] = {}
    for name, answer in _ask(sizes, newest, keys, clock=clock, seconds=round_seconds):
        if isinstance(answer, WitnessAnswer) and answer.known_size is not None:
            other_sizes[name] = answer.known_size
            _report_forgotten_size(asked[name], newest, answer.known_size, now=clock())
        else:
            results.append(_record_answer(asked[name], newest, answer, now=clock()))
    for name, answer in _ask(other_sizes, newest, keys, clock=clock, seconds=round_seconds):
        second_size = None
        if isinstance(answer, WitnessAnswer):
            second_size = answer.known_size

        # The size of a witness never decreases. If it is larger, another process was faster, and
        # the next run asks the witness again.
        is_contradiction = second_size is not None and second_size <= other_sizes[name]
        final: WitnessAnswer | RuleCode
        if is_contradiction:
            final = WitnessAnswer(fault=WitnessFault.SIZE_INVALID)
        else:
            final = answer

        if second_size is None or is_contradiction:
            results.append(_record_answer(asked[name], newest, final, now=clock()))
    return results


def _find_newest_checkpoint() -> _NewestCheckpoint | None:
    rows = read_checkpoints(-1, limit=1, newest_first=True)
    if not rows:
        return None
    note = rows[0].note
    return _NewestCheckpoint(
        origin=parse_checkpoint(note).origin, tree_size=rows[0].tree_size, note=note
    )


def _get_state(name: str, *, now: datetime) -> LogWitness:
    return LogWitness.objects.get_or_create(name=name, defaults={"due_at": now})[0]


def _lacks(state: LogWitness, newest: _NewestCheckpoint, *, now: datetime) -> bool:
    is_current = (state.origin, state.tree_size) == (
        newest.origin,
        newest.tree_size,
    ) and not state.last_fault
    # A time of the future is not what was written here.
    return (
        not is_current
        or state.cosigned_at is None
        or not timedelta() <= now - state.cosigned_at < RENEW_AFTER
    )


def _is_due(state: LogWitness, *, now: datetime) -> bool:
    return not timedelta() < state.due_at - now <= MAX_RETRY_DELAY


def _get_known_size(state: LogWitness, newest: _NewestCheckpoint) -> int:
    """Return the size that the witness has probably cosigned. It may not be named if it is above
    the newest one.
    """
    if state.origin == newest.origin:
        return max(0, min(state.tree_size, newest.tree_size))
    return 0


def _ask(
    sizes: Mapping[str, int],
    newest: _NewestCheckpoint,
    keys: Mapping[str, WitnessKey],
    *,
    clock: Callable[[], datetime],
    seconds: float,
) -> Iterator[tuple[str, WitnessAnswer | RuleCode]]:
    """Yield the answer of each witness as it arrives, and a code for those that gave none in
    time.
    """
    if not sizes:
        return
    declarations = conf.witnesses()
    proofs = {
        size: build_consistency_proof(size, newest.tree_size, read_nodes)
        for size in set(sizes.values())
    }
    # Not as a context manager, which would wait for a thread that the deadline does not end: name
    # resolution.
    executor = ThreadPoolExecutor(max_workers=len(sizes), thread_name_prefix="phi-oidc-witness")
    try:
        pending: dict[Future[Any], str] = {}
        for name, size in sizes.items():
            body = build_add_checkpoint_body(old_size=size, proof=proofs[size], note=newest.note)
            pending[executor.submit(_post, declarations[name], body, timeout_seconds=seconds)] = (
                name
            )
        try:
            # The deadline of each exchange is `seconds`; the margin is for the threads to end.
            for future in as_completed([*pending], timeout=seconds + 0.5):
                name = pending.pop(future)
                yield name, _read_answer(future, newest, keys[name], clock=clock)
        except TimeoutError:
            yield from ((name, Code.TRANSPORT_TIMEOUT) for name in pending.values())
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _post(
    declaration: WitnessDeclaration, body: bytes, *, timeout_seconds: float
) -> tuple[int, bytes]:
    """Return status and body of the response. Raises: TransportError."""
    request = TransportRequest(
        method="POST",
        url=f"{declaration.url.rstrip('/')}/add-checkpoint",
        headers={"Content-Type": "text/plain; charset=utf-8"},
        body=body,
        operation="add_checkpoint",
    )
    ssl_context = None
    if request.url.startswith("https:"):
        ssl_context = create_ssl_context(declaration.ca_bundle)

    response = send_on_new_connection(
        request,
        ssl_context=ssl_context,
        timeout_seconds=timeout_seconds,
        max_body_bytes=MAX_RESPONSE_BYTES,
    )
    return response.status, response.body


def _read_answer(
    future: Future[tuple[int, bytes]],
    newest: _NewestCheckpoint,
    key: WitnessKey,
    *,
    clock: Callable[[], datetime],
) -> WitnessAnswer | RuleCode:
    try:
        status, body = future.result()
    except TransportError as error:
        return error.code
    return process_add_checkpoint_response(
        status=status,
        body=body,
        note=newest.note,
        tree_size=newest.tree_size,
        key=key,
        now_seconds=int(clock().timestamp()),
    )


def _report_forgotten_size(
    state: LogWitness, newest: _NewestCheckpoint, stated_size: int, *, now: datetime
) -> None:
    """Raise an alert if a witness states less than the size of a cosignature of its own, which is
    stored here.
    """
    if state.origin == newest.origin and stated_size < state.tree_size:
        with transaction.atomic(durable=True):
            _raise_alert("witness_invalid", state, reason=WitnessFault.SIZE_INVALID, now=now)


def _record_answer(
    state: LogWitness, newest: _NewestCheckpoint, answer: WitnessAnswer | RuleCode, *, now: datetime
) -> SubmissionResult:
    """Commit the cosignature or the fault, with an alert about a new fault."""
    fault: str
    if isinstance(answer, RuleCode):
        fault = answer
    else:
        fault = answer.fault or ""

    metrics.increment(metrics.WITNESS_ANSWERS, witness=state.name, outcome=fault or "cosigned")
    with transaction.atomic(durable=True):
        if isinstance(answer, WitnessAnswer) and answer.cosignature:
            _store_cosignature(state, newest, answer.cosignature, now=now)
        else:
            _store_fault(state, fault, now=now)
    return SubmissionResult(witness=state.name, fault=fault)


def _store_cosignature(
    state: LogWitness, newest: _NewestCheckpoint, line: str, *, now: datetime
) -> None:
    content = {"note": newest.note, "line": line}
    Cosignature.objects.update_or_create(
        defaults=content, witness=state.name, origin=newest.origin, tree_size=newest.tree_size
    )
    # Another process may have stored a newer one in the meantime.
    older = LogWitness.objects.filter(name=state.name).exclude(
        origin=newest.origin, tree_size__gt=newest.tree_size
    )
    older.update(
        origin=newest.origin,
        tree_size=newest.tree_size,
        note=newest.note,
        cosigned_at=now,
        due_at=now,
        attempts=0,
        last_fault="",
        failing_since=None,
    )


def _store_fault(state: LogWitness, fault: str, *, now: datetime) -> None:
    since = state.failing_since or now
    wait = compute_backoff(
        attempts=state.attempts + 1,
        needs_operator=False,
        retry_after=None,
        jitter_fraction=int.from_bytes(randomness.token_bytes(4)) / 2**32,
    )
    LogWitness.objects.filter(name=state.name).update(
        last_fault=fault,
        failing_since=since,
        attempts=state.attempts + 1,
        due_at=now + min(wait, MAX_RETRY_DELAY),
    )
    if fault in REFUSALS:
        _raise_alert("witness_refused", state, reason=fault, now=now)
    elif fault in CONTRADICTIONS:
        _raise_alert("witness_invalid", state, reason=fault, now=now)
    elif now - since >= ALERT_AFTER:
        _raise_alert("witness_unavailable", state, reason=fault, now=now)


def _raise_alert(rule: str, state: LogWitness, *, reason: str, now: datetime) -> None:
    """Write an alert that names the witness, at most one of a rule in an hour, in the open
    transaction.
    """
    is_recent = state.alerted_at is not None and now - state.alerted_at < ALERT_INTERVAL
    if state.alert_rule == rule and is_recent:
        return
    LogWitness.objects.filter(name=state.name).update(alert_rule=rule, alerted_at=now)
    resource = f"Witness/{state.name}"
    detail = {"rule": rule}
    enqueue(
        Action.ALERT_RAISED,
        origin=Origin(),
        now=now,
        using=DEFAULT_DB_ALIAS,
        resource=resource,
        reason=reason,
        detail=detail,
    )
