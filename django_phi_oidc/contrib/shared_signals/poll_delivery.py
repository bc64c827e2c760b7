"""Polling for security events. Spec: RFC 8936 2."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import MetadataError
from ...http.transport import TransportRequest, TransportResponse, parse_json_body
from .errors import SignalCode
from .event_stream import build_stream_request, process_stream_response

ERROR_CODES: Mapping[str, str] = {
    **dict.fromkeys(("signature_invalid", "key_not_found", "alg_not_allowed"), "invalid_key"),
    "iss_invalid": "invalid_issuer",
    "aud_invalid": "invalid_audience",
    "authorization_invalid": "authentication_failed",
    "state_invalid": "invalid_state",
}
"""The error code of a transmission by the rule that refused; for all others `invalid_request`.
Spec: RFC 8935 2.4;
SSF 1.0 8.1.4.1.
"""


def get_error_code(rule: str) -> str:
    """Return the code for the transmitter."""
    return ERROR_CODES.get(rule, "invalid_request")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolledEvents:
    """The tokens of one response, by their `jti`, not verified."""

    tokens: Mapping[str, str] = field(repr=False)
    more_available: bool


def build_poll_request(
    endpoint_url: str,
    *,
    access_token: str,
    max_events: int,
    acknowledged: Sequence[str],
    errors: Mapping[str, tuple[str, str]],
) -> TransportRequest:
    """Return the request that acknowledges events, reports errors, and asks for more.

    acknowledged: the jti of events that are processed and committed. errors: (err, description) by
    jti. The transmitter answers at once instead of waiting for an event: a task that waits would
    occupy a worker. max_events: 0 only acknowledges. Spec: RFC 8936 2.2, 2.4.
    """
    body: dict[str, Any] = {"maxEvents": max_events, "returnImmediately": True}
    if acknowledged:
        body["ack"] = list(acknowledged)
    if errors:
        set_errors = {}
        for jti, (err, description) in errors.items():
            set_errors[jti] = {"err": err, "description": description}
        body["setErrs"] = set_errors
    return build_stream_request("POST", endpoint_url, access_token=access_token, body=body)


def process_poll_response(response: TransportResponse) -> PolledEvents:
    """Return the events. Raises: MetadataError (`stream_refused`); TransportError for an outage.
    Spec: RFC 8936 2.3.
    """
    process_stream_response(response, accepted=(200, 202, 204))

    if response.body:
        members = parse_json_body(response)
    else:
        members = {}

    if members is not None:
        tokens = members.get("sets", {})
    else:
        tokens = {}

    if (
        members is None
        or not isinstance(tokens, dict)
        or not all(isinstance(token, str) for token in tokens.values())
    ):
        raise MetadataError(
            SignalCode.STREAM_REFUSED, "The transmitter sends no events (RFC 8936 2.3)."
        )
    return PolledEvents(tokens=tokens, more_available=members.get("moreAvailable") is True)
