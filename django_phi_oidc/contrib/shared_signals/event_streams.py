"""Manage the streams of security events at a transmitter. Nothing of a stream is stored here. Spec:
SSF 1.0 8.1.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.views.decorators.debug import sensitive_variables

from ..._internal import randomness
from ...audit.events import Action, Origin
from ...audit.recorder import record
from ...http.transport import TransportRequest, TransportResponse
from ...replay.cache import remember, was_used
from .event_reception import STATE_KIND, VERIFIED_KIND, format_verification
from .event_stream import (
    EventStream,
    build_delivery,
    build_stream_request,
    process_configuration_response,
    process_configurations_response,
    process_status_response,
    process_stream_response,
)
from .security_event_token import EVENTS_WITH_EFFECT
from .transmitter import Transmitter

CALL_SECONDS = 8.0
VERIFICATION_LIFETIME = timedelta(hours=1)
_POLL_INTERVAL_SECONDS = 0.2
UNAUTHORIZED = 401


@sensitive_variables()
def send_authorized(
    transmitter: Transmitter, build: Callable[[str], TransportRequest]
) -> TransportResponse:
    """Send the request that build returns for an access token; once more with a new token if it was
    refused.

    Raises: TransportError, MetadataError, TokenResponseError.
    """
    ends_at = time.monotonic() + CALL_SECONDS
    transport = transmitter.provider.transport
    seconds = CALL_SECONDS
    token = transmitter.get_access_token(timeout_seconds=seconds)
    response = transport.send(build(token), timeout_seconds=ends_at - time.monotonic())
    if response.status == UNAUTHORIZED and not transmitter.signals.access_token:
        token = transmitter.get_access_token(timeout_seconds=seconds, is_renewed=True)
        response = transport.send(build(token), timeout_seconds=seconds)
    return response


def list_streams(transmitter: Transmitter) -> list[EventStream]:
    """Return the streams of this receiver. Raises: TransportError, MetadataError,
    TokenResponseError.
    """
    response = _send(transmitter, "GET", "configuration_endpoint")
    return process_configurations_response(
        response, declaration=transmitter.provider.declaration, signals=transmitter.signals
    )


def create_stream(
    transmitter: Transmitter, *, push_url: str, origin: Origin, now: datetime
) -> EventStream:
    """Create a stream with the declared delivery and events, after the event of the change.

    push_url: where events are pushed to. Raises: as list_streams; AuditUnavailable.
    Spec: SSF 1.0 8.1.1.1.
    """
    _record(transmitter, "create", origin=origin, now=now)
    body = {
        "delivery": build_delivery(transmitter.signals, push_url=push_url),
        "events_requested": _list_requested_events(transmitter),
    }
    response = _send(transmitter, "POST", "configuration_endpoint", body=body)
    return process_configuration_response(
        response, declaration=transmitter.provider.declaration, signals=transmitter.signals
    )


def update_stream(
    transmitter: Transmitter, stream_id: str, *, origin: Origin, now: datetime
) -> EventStream:
    """Request the declared events, after the event of the change. Raises: as create_stream. Spec:
    SSF 1.0 8.1.1.3.
    """
    _record(transmitter, "update", origin=origin, now=now)
    body = {"stream_id": stream_id, "events_requested": _list_requested_events(transmitter)}
    response = _send(transmitter, "PATCH", "configuration_endpoint", body=body)
    return process_configuration_response(
        response, declaration=transmitter.provider.declaration, signals=transmitter.signals
    )


def delete_stream(
    transmitter: Transmitter, stream_id: str, *, origin: Origin, now: datetime
) -> None:
    """Delete the stream, after the event of the change. Raises: as create_stream. Spec: SSF 1.0
    8.1.1.5.
    """
    _record(transmitter, "delete", origin=origin, now=now)
    response = _send(transmitter, "DELETE", "configuration_endpoint", stream_id=stream_id)
    process_stream_response(response, accepted=(200, 204))


def get_status(transmitter: Transmitter, stream_id: str) -> str:
    """Return `enabled`, `paused` or `disabled`. Raises: as list_streams. Spec: SSF 1.0 8.1.2.1."""
    return process_status_response(
        _send(transmitter, "GET", "status_endpoint", stream_id=stream_id)
    )


def set_status(
    transmitter: Transmitter, stream_id: str, status: str, *, origin: Origin, now: datetime
) -> str:
    """Set the status, after the event of the change, and return it. Raises: as create_stream. Spec:
    SSF 1.0 8.1.2.2.
    """
    _record(transmitter, f"status {status}", origin=origin, now=now)
    body = {"stream_id": stream_id, "status": status}
    return process_status_response(_send(transmitter, "POST", "status_endpoint", body=body))


def request_verification(transmitter: Transmitter, stream_id: str, *, now: datetime) -> str:
    """Request a verification event with a new state, and return what identifies it for
    `is_verified`.

    Raises: as list_streams. Spec: SSF 1.0 8.1.4.2.
    """
    state = randomness.token_b64url(16)
    provider = transmitter.provider.declaration.name
    # In the form of drafts, the event does not name the stream.
    if transmitter.signals.allow_draft_events:
        stream_ids = [stream_id, ""]
    else:
        stream_ids = [stream_id]

    verifications = []
    for named in stream_ids:
        verifications.append(format_verification(provider, named, state))
    remember(STATE_KIND, verifications, expires_at=now + VERIFICATION_LIFETIME)
    response = _send(
        transmitter, "POST", "verification_endpoint", body={"stream_id": stream_id, "state": state}
    )
    process_stream_response(response, accepted=(200, 202, 204))
    return state


def is_verified(transmitter: Transmitter, stream_id: str, state: str) -> bool:
    """Return whether the verification event with that state has been received."""
    provider = transmitter.provider.declaration.name
    named = []
    for stream in (stream_id, ""):
        named.append(format_verification(provider, stream, state))
    return any(was_used(VERIFIED_KIND, verification) for verification in named)


def wait_for_verification(
    transmitter: Transmitter, stream_id: str, state: str, *, seconds: float, poll: Callable[[], Any]
) -> bool:
    """Return whether the verification event arrives in that time. poll: called before each look."""
    ends_at = time.monotonic() + seconds
    while True:
        poll()
        if is_verified(transmitter, stream_id, state):
            return True
        if time.monotonic() >= ends_at:
            return False
        time.sleep(_POLL_INTERVAL_SECONDS)


@sensitive_variables()
def change_subject(
    transmitter: Transmitter,
    stream_id: str,
    *,
    sub: str,
    is_added: bool,
    origin: Origin,
    now: datetime,
) -> None:
    """Add the person to the stream, or remove them, after the event of the change. Raises: as
    create_stream.

    sub: of the person at the provider. Spec: SSF 1.0 8.1.3.
    """
    _record(transmitter, "add_subject" if is_added else "remove_subject", origin=origin, now=now)
    subject = {"format": "iss_sub", "iss": transmitter.provider.declaration.issuer, "sub": sub}
    body: dict[str, Any] = {"stream_id": stream_id, "subject": subject}
    if is_added:
        body["verified"] = True
    response = _send(
        transmitter,
        "POST",
        "add_subject_endpoint" if is_added else "remove_subject_endpoint",
        body=body,
    )
    process_stream_response(response, accepted=(200, 204))


def _record(transmitter: Transmitter, operation: str, *, origin: Origin, now: datetime) -> None:
    provider = transmitter.provider.declaration.name
    record(
        Action.SIGNAL_STREAM_CHANGED,
        origin=origin,
        now=now,
        provider=provider,
        detail={"operation": operation},
    )


def _list_requested_events(transmitter: Transmitter) -> list[str]:
    return list(transmitter.signals.events_requested or EVENTS_WITH_EFFECT)


@sensitive_variables()
def _send(
    transmitter: Transmitter,
    method: str,
    endpoint: str,
    *,
    body: dict[str, Any] | None = None,
    stream_id: str = "",
) -> TransportResponse:
    url: str = getattr(transmitter.get_metadata(timeout_seconds=CALL_SECONDS), endpoint)
    return send_authorized(
        transmitter,
        lambda access_token: build_stream_request(
            method, url, access_token=access_token, body=body, stream_id=stream_id
        ),
    )
