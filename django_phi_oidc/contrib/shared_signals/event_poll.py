"""Poll a transmitter for security events, and acknowledge those that are committed. Spec: RFC
8936.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from django.views.decorators.debug import sensitive_variables

from ... import conf
from ...audit.events import Origin
from ...errors import Code, MetadataError, TransportError
from ...sessions.models import PendingRevocation
from ...sessions.token_revocation import retry_due
from .errors import SecurityEventTokenInvalid, SignalCode
from .event_reception import (
    RETRIABLE_ERRORS,
    log_fault,
    process_event,
    report_refused_event,
    verify_event,
)
from .event_stream import DELIVERY_METHODS
from .event_streams import CALL_SECONDS, list_streams, send_authorized
from .poll_delivery import PolledEvents, build_poll_request, get_error_code, process_poll_response
from .transmitter import Transmitter, get_transmitter

MAX_EVENTS = 100
"""Of one response, which is at most 1 MiB."""


@dataclass(slots=True, kw_only=True)
class PollResult:
    """What a poll did."""

    acknowledged: int = 0
    """Processed now, or before."""
    refused: int = 0
    left: int = 0
    """Not acknowledged, because they could not be recorded or processed: the next poll gets them
    again.
    """


@dataclass(slots=True, kw_only=True)
class _Answers:
    """What the next request says about the events of the last response."""

    acknowledged: list[str] = field(default_factory=list)
    errors: dict[str, tuple[str, str]] = field(default_factory=dict)
    left: int = 0


def poll_events(
    provider: str, *, clock: Callable[[], datetime], budget_seconds: float
) -> PollResult:
    """Fetch and process the events of all poll streams of a provider until there are none, or the
    budget is used up.

    An event is acknowledged by the next request, after its effects are committed: a killed process
    loses none, and an event that comes again is acknowledged without a second effect. After a fault
    the poll ends.
    Requires: no open transaction.
    Raises: TransportError, MetadataError (`stream_refused`, also if there is no stream),
    TokenResponseError.
    """
    transmitter = get_transmitter(provider)
    result = PollResult()
    ends_at = time.monotonic() + budget_seconds
    streams = []
    for stream in list_streams(transmitter):
        if stream.delivery == DELIVERY_METHODS["poll"]:
            streams.append(stream)
    if not streams:
        # A stream that the transmitter has lost sends no events, not even one about its end.
        raise MetadataError(
            SignalCode.STREAM_REFUSED, "The transmitter has no stream that is polled."
        )
    for stream in streams:
        _poll_stream(transmitter, stream.endpoint_url, result, clock=clock, ends_at=ends_at)
    return result


def _poll_stream(
    transmitter: Transmitter,
    endpoint_url: str,
    result: PollResult,
    *,
    clock: Callable[[], datetime],
    ends_at: float,
) -> None:
    answers = _Answers()
    max_events = MAX_EVENTS
    while True:
        try:
            polled = _send_poll(transmitter, endpoint_url, answers, max_events=max_events)
        except TransportError as error:
            if error.code is not Code.TRANSPORT_TOO_LARGE or max_events == 1:
                raise
            max_events = 1
            continue
        answers = _process_events(transmitter, polled, clock=clock, ends_at=ends_at)
        result.acknowledged += len(answers.acknowledged)
        result.refused += len(answers.errors)
        result.left += answers.left
        has_answers = bool(answers.acknowledged or answers.errors)
        if answers.left or not polled.more_available or time.monotonic() >= ends_at:
            if has_answers:
                _send_poll(transmitter, endpoint_url, answers, max_events=0)
            return
        if not has_answers:
            return


@sensitive_variables()
def _send_poll(
    transmitter: Transmitter, endpoint_url: str, answers: _Answers, *, max_events: int
) -> PolledEvents:
    response = send_authorized(
        transmitter,
        lambda access_token: build_poll_request(
            endpoint_url,
            access_token=access_token,
            max_events=max_events,
            acknowledged=answers.acknowledged,
            errors=answers.errors,
        ),
    )
    return process_poll_response(response)


@sensitive_variables()
def _process_events(
    transmitter: Transmitter, polled: PolledEvents, *, clock: Callable[[], datetime], ends_at: float
) -> _Answers:
    """Process the events of one response, and revoke the tokens of the sessions that ended."""
    answers = _Answers()
    declaration = transmitter.provider.declaration
    revocation_ids = []
    for jti, token in polled.tokens.items():
        try:
            event = verify_event(token, provider=declaration.name, timeout_seconds=CALL_SECONDS)
            if event.jti != jti:
                raise SecurityEventTokenInvalid("jti_invalid")
            ended = process_event(
                event,
                declaration=declaration,
                signals=transmitter.signals,
                origin=Origin(),
                now=clock(),
            )
            for session in ended:
                for pk in session.revocation_ids:
                    revocation_ids.append(pk)
        except SecurityEventTokenInvalid as refusal:
            report_refused_event(refusal, provider=declaration.name, origin=Origin(), now=clock())
            answers.errors[jti] = (get_error_code(refusal.rule), str(refusal))
        except RETRIABLE_ERRORS as fault:
            log_fault(fault, provider=declaration.name)
            answers.left = len(polled.tokens) - len(answers.acknowledged) - len(answers.errors)
            break
        else:
            answers.acknowledged.append(jti)
    if revocation_ids:
        retry_due(
            rows=PendingRevocation.objects.filter(pk__in=revocation_ids),
            clock=clock,
            budget_seconds=max(ends_at - time.monotonic(), CALL_SECONDS),
            timeout_seconds=CALL_SECONDS,
            give_up_after=conf.revocation_give_up_after(),
        )
    return answers
