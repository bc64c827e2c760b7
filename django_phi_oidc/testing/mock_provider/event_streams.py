"""The mock provider as a transmitter of security events: its streams, and the events that it signs
and sends.

Spec: OpenID Shared Signals Framework 1.0 (SSF); RFC 8417, 8935, 8936.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from ..._internal.randomness import token_b64url
from .backchannel import TIMEOUT_SECONDS, BackchannelLogoutResponse
from .client_connections import build_request_target, create_connection
from .messages import NO_STORE_HEADERS, OAuthError, ReceivedRequest, Reply
from .registrations import Client
from .signing import parse_unverified
from .state import ProviderState, TransmitterStream

PUSH = "urn:ietf:rfc:8935"
POLL = "urn:ietf:rfc:8936"
SSF_EVENTS = "https://schemas.openid.net/secevent/ssf/event-type/"
_CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
_RISC = "https://schemas.openid.net/secevent/risc/event-type/"
SUPPORTED_EVENTS = (
    f"{_CAEP}session-revoked",
    f"{_CAEP}token-claims-change",
    f"{_CAEP}credential-change",
    f"{_CAEP}assurance-level-change",
    f"{_CAEP}device-compliance-change",
    f"{_RISC}account-disabled",
    f"{_RISC}account-enabled",
    f"{_RISC}account-purged",
    f"{_RISC}identifier-changed",
    f"{_RISC}identifier-recycled",
    f"{_RISC}account-credential-change-required",
    f"{_RISC}credential-compromise",
    f"{_RISC}sessions-revoked",
)


def create_security_event(
    state: ProviderState,
    *,
    audience: str,
    event_type: str,
    event: Mapping[str, Any] | None = None,
    sub_id: Mapping[str, Any] | None = None,
    jti: str = "",
    now: datetime | None = None,
) -> str:
    """Return a signed security event token; the hook's stage is `security_event`. Spec: SSF 1.0
    4.1.
    """
    claims = {
        "iss": state.issuer,
        "aud": audience,
        "iat": int((now or state.clock()).timestamp()),
        "jti": jti or token_b64url(16),
        **({"sub_id": dict(sub_id)} if sub_id is not None else {}),
        "events": {event_type: dict(event or {})},
    }
    return state.sign_claims(
        "security_event", ReceivedRequest(method="", path=""), claims, typ="secevent+jwt"
    )


def push_security_event(
    token: str, *, url: str, authorization: str = "", content_type: str = "application/secevent+jwt"
) -> BackchannelLogoutResponse:
    """Post the token to the receiver and return the response. Raises: OSError without one in time.
    Spec: RFC 8935 2.
    """
    parts = urlsplit(url)
    connection = create_connection(parts, timeout_seconds=TIMEOUT_SECONDS)
    headers = {"Content-Type": content_type, "Accept": "application/json", "Connection": "close"}
    if authorization:
        headers["Authorization"] = authorization
    try:
        connection.request("POST", build_request_target(parts), body=token, headers=headers)

        if parts.scheme == "https" or connection.sock is None:
            rest = None
        else:
            rest = connection.sock.dup()

        response = connection.getresponse()
        received = {}
        for name, value in response.getheaders():
            received[name.lower()] = value
        body = response.read()
        if rest is not None:
            # The receiver closes the connection when it has finished the request, with its work in
            # the database.
            with rest:
                while rest.recv(4096):
                    pass
        return BackchannelLogoutResponse(status=response.status, headers=received, body=body)
    except HTTPException as error:
        raise ConnectionError("The receiver's response is not HTTP.") from error
    finally:
        connection.close()


def deliver_security_event(state: ProviderState, stream: TransmitterStream, token: str) -> None:
    """Push the token, or queue it for the next poll."""
    if stream.method == PUSH:
        stream.push_responses.append(
            push_security_event(
                token, url=stream.endpoint_url, authorization=stream.authorization_header
            )
        )
        return
    with state.lock:
        stream.queue[str(parse_unverified(token)[1].get("jti", token_b64url(8)))] = token


def issue_client_token(state: ProviderState, client: Client) -> Reply:
    """Return an access token for the interface of the transmitter. Spec: RFC 6749 4.4."""
    value = token_b64url(32)
    now = state.clock()
    with state.lock:
        state.client_tokens[value] = client.client_id, now + state.access_token_lifetime
    seconds = int(state.access_token_lifetime.total_seconds())
    body = {"access_token": value, "token_type": "Bearer", "expires_in": seconds}
    return Reply(headers=dict(NO_STORE_HEADERS), json=body)


def handle_transmitter_metadata(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Return the transmitter's metadata. Spec: SSF 1.0 7.1."""
    issuer = state.issuer
    metadata = {
        "spec_version": "1_0",
        "issuer": issuer,
        "jwks_uri": f"{issuer}/jwks",
        "delivery_methods_supported": [PUSH, POLL],
        "configuration_endpoint": f"{issuer}/ssf/streams",
        "status_endpoint": f"{issuer}/ssf/status",
        "add_subject_endpoint": f"{issuer}/ssf/subjects:add",
        "remove_subject_endpoint": f"{issuer}/ssf/subjects:remove",
        "verification_endpoint": f"{issuer}/ssf/verify",
        "authorization_schemes": [{"spec_urn": "urn:ietf:rfc:6749"}],
        "default_subjects": "ALL",
    }
    return Reply(json=metadata)


def handle_streams(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Create, read, update or delete streams of the client. Spec: SSF 1.0 8.1.1."""
    try:
        client_id = _authorize(state, request)
        if request.method == "POST":
            return Reply(
                status=201,
                json=_describe(state, _create_stream(state, client_id, _get_body(request))),
            )
        if request.method == "PATCH":
            body = _get_body(request)
            stream = _get_stream(state, client_id, body.get("stream_id"))
            stream.events_requested = list(body.get("events_requested", stream.events_requested))
            return Reply(json=_describe(state, stream))
        stream_id = dict(request.query).get("stream_id", "")
        if request.method == "DELETE":
            del state.event_streams[_get_stream(state, client_id, stream_id).stream_id]
            return Reply(status=204)
        if stream_id:
            return Reply(json=_describe(state, _get_stream(state, client_id, stream_id)))
        descriptions = []
        for stream in state.event_streams.values():
            if stream.client_id == client_id:
                descriptions.append(_describe(state, stream))
        return Reply(json=descriptions)
    except OAuthError as error:
        return error.to_reply()


def handle_stream_status(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Return or set the status of a stream. Spec: SSF 1.0 8.1.2."""
    try:
        client_id = _authorize(state, request)

        if request.method == "POST":
            body = _get_body(request)
        else:
            body = dict(request.query)

        stream = _get_stream(state, client_id, body.get("stream_id"))
        stream.status = body.get("status", stream.status)
        return Reply(json={"stream_id": stream.stream_id, "status": stream.status})
    except OAuthError as error:
        return error.to_reply()


def handle_add_subject(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Add a subject to a stream. Spec: SSF 1.0 8.1.3.2."""
    return _change_subjects(state, request, is_added=True)


def handle_remove_subject(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Remove a subject from a stream. Spec: SSF 1.0 8.1.3.3."""
    return _change_subjects(state, request, is_added=False)


def handle_verification(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Send a verification event with the requested state. Spec: SSF 1.0 8.1.4."""
    try:
        client_id = _authorize(state, request)
        body = _get_body(request)
        stream = _get_stream(state, client_id, body.get("stream_id"))

        if "state" in body:
            event = {"state": body["state"]}
        else:
            event = {}

        token = create_security_event(
            state,
            audience=client_id,
            event_type=f"{SSF_EVENTS}verification",
            event=event,
            sub_id={"format": "opaque", "id": stream.stream_id},
        )
        deliver_security_event(state, stream, token)
        return Reply(status=204)
    except OAuthError as error:
        return error.to_reply()


def handle_event_poll(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Remove the events that were acknowledged or refused, and return the oldest others. Spec: RFC
    8936 2.
    """
    try:
        client_id = _authorize(state, request)
        body = _get_body(request)
        stream = _get_stream(state, client_id, dict(request.query).get("stream_id"))
        with state.lock:
            stream.acknowledged += body.get("ack", [])
            stream.errors |= body.get("setErrs", {})
            for jti in (*body.get("ack", []), *body.get("setErrs", {})):
                stream.queue.pop(jti, None)
            sets = dict(list(stream.queue.items())[: body.get("maxEvents", len(stream.queue))])
            return Reply(json={"sets": sets, "moreAvailable": len(sets) < len(stream.queue)})
    except OAuthError as error:
        return error.to_reply()


def _authorize(state: ProviderState, request: ReceivedRequest) -> str:
    """Return the client of the Bearer token. Spec: RFC 6750 2.1, 3.1."""
    value = request.headers.get("authorization", "").partition(" ")[2]
    client_id, expires_at = state.client_tokens.get(value, ("", state.clock()))
    if not client_id or state.clock() >= expires_at:
        raise OAuthError("invalid_token", status=401, headers={"WWW-Authenticate": "Bearer"})
    return client_id


def _get_body(request: ReceivedRequest) -> dict[str, Any]:
    try:
        body = json.loads(request.body)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise OAuthError("invalid_request", "The body is no JSON object.")
    return body


def _get_stream(state: ProviderState, client_id: str, stream_id: object) -> TransmitterStream:
    stream = state.event_streams.get(str(stream_id))
    if stream is None or stream.client_id != client_id:
        raise OAuthError("not_found", status=404)
    return stream


def _create_stream(
    state: ProviderState, client_id: str, body: Mapping[str, Any]
) -> TransmitterStream:
    delivery = body.get("delivery", {"method": POLL})
    stream_id = token_b64url(12)
    is_push = delivery.get("method") == PUSH
    stream = TransmitterStream(
        stream_id=stream_id,
        client_id=client_id,
        method=delivery.get("method", POLL),
        endpoint_url=delivery["endpoint_url"]
        if is_push
        else f"{state.issuer}/ssf/poll?stream_id={stream_id}",
        authorization_header=delivery.get("authorization_header", ""),
        events_requested=list(body.get("events_requested", SUPPORTED_EVENTS)),
    )
    with state.lock:
        state.event_streams[stream_id] = stream
    return stream


def _describe(state: ProviderState, stream: TransmitterStream) -> dict[str, Any]:
    return {
        "stream_id": stream.stream_id,
        "iss": state.issuer,
        "aud": stream.client_id,
        "delivery": {"method": stream.method, "endpoint_url": stream.endpoint_url},
        "events_supported": list(SUPPORTED_EVENTS),
        "events_requested": stream.events_requested,
        "events_delivered": [uri for uri in stream.events_requested if uri in SUPPORTED_EVENTS],
    }


def _change_subjects(state: ProviderState, request: ReceivedRequest, *, is_added: bool) -> Reply:
    try:
        client_id = _authorize(state, request)
        body = _get_body(request)
        stream = _get_stream(state, client_id, body.get("stream_id"))
        subjects = []
        for subject in stream.subjects:
            if subject != body.get("subject"):
                subjects.append(subject)

        if is_added:
            stream.subjects = [*subjects, body["subject"]]
        else:
            stream.subjects = subjects

        return Reply(status=200 if is_added else 204)
    except OAuthError as error:
        return error.to_reply()
