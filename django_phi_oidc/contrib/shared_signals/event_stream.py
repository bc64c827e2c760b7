"""The transmitter's metadata, and the management of a stream of security events. Spec: SSF 1.0 7,
8.1.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ...config.providers import ProviderDeclaration
from ...errors import Code, MetadataError
from ...http.transport import (
    TransportRequest,
    TransportResponse,
    add_query,
    parse_json_body,
    raise_for_outage,
)
from ...oidc.id_token import get_audiences
from ...oidc.metadata import validate_https_url, validate_issuer
from .declaration import Delivery, SignalsDeclaration
from .errors import SignalCode
from .security_event_token import get_transmitter_issuer

DELIVERY_METHODS: Mapping[Delivery, str] = {
    "push": "urn:ietf:rfc:8935",
    "poll": "urn:ietf:rfc:8936",
}
_WELL_KNOWN_PATH = "/.well-known/ssf-configuration"
_ENDPOINTS = (
    *("configuration_endpoint", "status_endpoint", "verification_endpoint"),
    *("add_subject_endpoint", "remove_subject_endpoint"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransmitterMetadata:
    """The validated metadata of a transmitter. Missing endpoints are empty."""

    issuer: str
    jwks_uri: str
    configuration_endpoint: str = ""
    status_endpoint: str = ""
    verification_endpoint: str = ""
    add_subject_endpoint: str = ""
    remove_subject_endpoint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventStream:
    """The configuration of a stream, as the transmitter states it."""

    stream_id: str
    delivery: str
    """The URI of the method."""
    endpoint_url: str
    """Where events are pushed to, or polled from."""
    events_delivered: tuple[str, ...] = ()
    audience: tuple[str, ...] = field(default=())


def build_transmitter_metadata_request(
    declaration: ProviderDeclaration, signals: SignalsDeclaration
) -> TransportRequest:
    """Return the request for the metadata. The well-known path precedes that of the issuer. Spec:
    SSF 1.0 7.2.1.
    """
    parts = urlsplit(get_transmitter_issuer(declaration, signals))
    url = (
        signals.metadata_url
        or parts._replace(path=_WELL_KNOWN_PATH + parts.path.removesuffix("/")).geturl()
    )
    return TransportRequest(
        method="GET", url=url, headers={"Accept": "application/json"}, operation="signals_metadata"
    )


def process_transmitter_metadata_response(
    response: TransportResponse, *, declaration: ProviderDeclaration, signals: SignalsDeclaration
) -> TransmitterMetadata:
    """Return the metadata of the declared transmitter.

    Raises: MetadataError; TransportError for an outage, and for an endpoint that is not https.
    Spec: SSF 1.0 7.1.
    """
    raise_for_outage(response)

    members = None
    if response.status == 200:
        members = parse_json_body(response)

    if members is None:
        raise MetadataError(Code.METADATA_INVALID)
    issuer = get_transmitter_issuer(declaration, signals)
    validate_issuer(members, issuer=issuer)
    urls = {}
    for name in ("jwks_uri", *_ENDPOINTS):
        if members.get(name) is not None:
            urls[name] = members[name]
    if "jwks_uri" not in urls:
        raise MetadataError(Code.METADATA_INVALID)
    for url in urls.values():
        if not isinstance(url, str):
            raise MetadataError(Code.METADATA_INVALID)
        validate_https_url(url, allow_loopback_http=declaration.allow_loopback_http)
    return TransmitterMetadata(
        issuer=issuer,
        jwks_uri=urls["jwks_uri"],
        configuration_endpoint=urls.get("configuration_endpoint", ""),
        status_endpoint=urls.get("status_endpoint", ""),
        verification_endpoint=urls.get("verification_endpoint", ""),
        add_subject_endpoint=urls.get("add_subject_endpoint", ""),
        remove_subject_endpoint=urls.get("remove_subject_endpoint", ""),
    )


def build_delivery(signals: SignalsDeclaration, *, push_url: str) -> dict[str, str]:
    """Return the delivery that a stream is created or updated with. Spec: SSF 1.0 6.1.1, 6.1.2."""
    delivery = {"method": DELIVERY_METHODS[signals.delivery]}
    if signals.delivery == "push":
        delivery["endpoint_url"] = push_url
        if signals.push_authorization:
            delivery["authorization_header"] = signals.push_authorization
    return delivery


def build_stream_request(
    method: str,
    url: str,
    *,
    access_token: str,
    body: Mapping[str, Any] | None = None,
    stream_id: str = "",
) -> TransportRequest:
    """Return a request of the receiver to an endpoint of the transmitter.

    body: sent as JSON. stream_id: in the query.
    Raises: MetadataError (`stream_refused`) if the transmitter has no such endpoint.
    Spec: SSF 1.0 8.1, 7.1.1 (Bearer).
    """
    if not url:
        raise MetadataError(
            SignalCode.STREAM_REFUSED, "The transmitter has no endpoint for this (SSF 1.0 7.1)."
        )
    headers = {"Accept": "application/json", "Authorization": f"Bearer {access_token}"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    return TransportRequest(
        method=method,
        url=add_query(url, {"stream_id": stream_id}) if stream_id else url,
        headers=headers,
        body=None if body is None else json.dumps(body).encode("utf-8"),
        operation="signals_stream",
        is_background=True,
    )


def process_stream_response(response: TransportResponse, *, accepted: Collection[int]) -> None:
    """Raises: MetadataError (`stream_refused`) for another status; TransportError for an outage."""
    raise_for_outage(response)
    if response.status not in accepted:
        raise MetadataError(
            SignalCode.STREAM_REFUSED, f"The transmitter answered {response.status} (SSF 1.0 8.1)."
        )


def process_status_response(response: TransportResponse) -> str:
    """Return the status of a stream: `enabled`, `paused` or `disabled`. Raises: as above. Spec: SSF
    1.0 8.1.2.
    """
    process_stream_response(response, accepted=(200, 202))
    status = (parse_json_body(response) or {}).get("status")
    if status not in ("enabled", "paused", "disabled"):
        raise MetadataError(
            SignalCode.STREAM_REFUSED, "The transmitter does not state the status of the stream."
        )
    return str(status)


def process_configuration_response(
    response: TransportResponse, *, declaration: ProviderDeclaration, signals: SignalsDeclaration
) -> EventStream:
    """Return the stream that was created, read or updated, which is one of the declared
    transmitter, for this receiver.

    Raises: MetadataError (`stream_refused`); TransportError for an outage, and if the URL to poll
    is not https.
    Spec: SSF 1.0 8.1.1.
    """
    process_stream_response(response, accepted=(200, 201, 202))
    return _parse_stream(_parse_document(response), declaration=declaration, signals=signals)


def process_configurations_response(
    response: TransportResponse, *, declaration: ProviderDeclaration, signals: SignalsDeclaration
) -> list[EventStream]:
    """Return all streams of this receiver. Some transmitters send the only one without a list, or
    404 for none.

    Raises: as process_configuration_response. Spec: SSF 1.0 8.1.1.2.
    """
    if response.status == 404:
        return []
    process_stream_response(response, accepted=(200,))
    document = _parse_document(response)
    items: Sequence[Any]
    if isinstance(document, list):
        items = document
    else:
        items = [document]

    configurations_response = []
    for item in items:
        configurations_response.append(
            _parse_stream(item, declaration=declaration, signals=signals)
        )
    return configurations_response


def _parse_document(response: TransportResponse) -> Any:
    """Return the JSON object, or the list of them: the strict parser accepts objects only."""
    wrapped = TransportResponse(
        status=200, headers={}, body=b'{"document":' + response.body.strip() + b"}"
    )
    members = parse_json_body(wrapped)
    if members is None or members.keys() != {"document"}:
        raise MetadataError(SignalCode.STREAM_REFUSED, "The transmitter sends no JSON.")
    return members["document"]


def _parse_stream(
    members: object, *, declaration: ProviderDeclaration, signals: SignalsDeclaration
) -> EventStream:
    if not isinstance(members, dict):
        raise MetadataError(
            SignalCode.STREAM_REFUSED,
            "The transmitter does not describe the stream (SSF 1.0 8.1.1).",
        )
    if members.get("iss") != get_transmitter_issuer(declaration, signals):
        raise MetadataError(
            SignalCode.STREAM_REFUSED, "The stream is one of another transmitter (iss)."
        )
    stream_id = members.get("stream_id")
    delivery = members.get("delivery")
    delivered = members.get("events_delivered", [])
    if (
        not isinstance(stream_id, str)
        or not isinstance(delivery, dict)
        or not isinstance(delivered, list)
    ):
        raise MetadataError(
            SignalCode.STREAM_REFUSED,
            "The transmitter does not describe the stream (SSF 1.0 8.1.1).",
        )
    method = str(delivery.get("method", ""))
    endpoint_url = str(delivery.get("endpoint_url", ""))
    audience = tuple(get_audiences(members))
    if not "".join((stream_id, method, endpoint_url, *audience)).isprintable():
        # A command prints them, and a terminal interprets control characters.
        raise MetadataError(
            SignalCode.STREAM_REFUSED, "The description of the stream has control characters."
        )
    if method == DELIVERY_METHODS["poll"]:
        validate_https_url(endpoint_url, allow_loopback_http=declaration.allow_loopback_http)
    return EventStream(
        stream_id=stream_id,
        delivery=method,
        endpoint_url=endpoint_url,
        events_delivered=tuple(str(uri) for uri in delivered),
        audience=audience,
    )
