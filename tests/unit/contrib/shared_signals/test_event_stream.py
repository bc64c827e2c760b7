"""Requests to a transmitter and its answers: each refusal is next to an acceptance. Spec: SSF 1.0 7, 8.1; RFC 8936."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.contrib.shared_signals.client_credentials import (
    build_client_credentials_request,
    process_client_credentials_response,
)
from django_phi_oidc.contrib.shared_signals.declaration import SignalsDeclaration
from django_phi_oidc.contrib.shared_signals.event_stream import (
    build_delivery,
    build_stream_request,
    build_transmitter_metadata_request,
    process_configuration_response,
    process_configurations_response,
    process_status_response,
    process_transmitter_metadata_response,
)
from django_phi_oidc.contrib.shared_signals.poll_delivery import (
    build_poll_request,
    process_poll_response,
)
from django_phi_oidc.errors import Code, MetadataError, TokenError, TokenResponseError, TransportError
from django_phi_oidc.http.transport import TransportResponse
from django_phi_oidc.oidc.client_auth import AssertionFreshness
from django_phi_oidc.oidc.metadata import ProviderMetadata
from tests.support.error_codes import raises
from tests.support.protocol_fixtures import ISSUER

PUSH = SignalsDeclaration(delivery="push", push_authorization="Bearer x")
POLL = SignalsDeclaration(delivery="poll")
METADATA = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/jwks", "configuration_endpoint": f"{ISSUER}/streams"}
STREAM = {
    "stream_id": "s1",
    "iss": ISSUER,
    "aud": "portal",
    "delivery": {"method": "urn:ietf:rfc:8936", "endpoint_url": f"{ISSUER}/poll/s1"},
    "events_delivered": ["urn:x"],
}
Declare = Callable[..., ProviderDeclaration]
Respond = Callable[..., TransportResponse]


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({}, "https://op.example/.well-known/ssf-configuration"),
        ({"transmitter": "https://t.example/"}, "https://t.example/.well-known/ssf-configuration"),
        ({"transmitter": "https://t.example/a/b"}, "https://t.example/.well-known/ssf-configuration/a/b"),
        ({"metadata_url": "https://t.example/risc"}, "https://t.example/risc"),
    ],
)
def test_metadata_url_precedes_the_path_of_the_issuer(declare: Declare, options: dict[str, str], url: str) -> None:
    request = build_transmitter_metadata_request(declare(), SignalsDeclaration(delivery="push", **options))  # type: ignore[arg-type]
    assert (request.method, request.url) == ("GET", url)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"issuer": "https://other.example"}, Code.ISSUER_MISMATCH),
        ({"jwks_uri": None}, Code.METADATA_INVALID),
        ({"jwks_uri": 7}, Code.METADATA_INVALID),
        ({"jwks_uri": "http://op.example/jwks"}, Code.TRANSPORT_NOT_HTTPS),
        ({"status_endpoint": "http://op.example/status"}, Code.TRANSPORT_NOT_HTTPS),
    ],
)
def test_metadata_with_one_fault_is_refused(
    declare: Declare, make_response: Respond, changes: dict[str, Any], code: Code
) -> None:
    context: dict[str, Any] = {"declaration": declare(), "signals": PUSH}
    metadata = process_transmitter_metadata_response(make_response(METADATA), **context)
    assert (metadata.configuration_endpoint, metadata.status_endpoint) == (f"{ISSUER}/streams", "")
    with raises((MetadataError, TransportError)) as raised:
        process_transmitter_metadata_response(make_response({**METADATA, **changes}), **context)
    assert raised.value.code == code


def test_delivery_has_the_url_and_the_header_only_for_a_push() -> None:
    assert build_delivery(PUSH, push_url="https://portal/p") == {
        "method": "urn:ietf:rfc:8935",
        "endpoint_url": "https://portal/p",
        "authorization_header": "Bearer x",
    }
    assert build_delivery(POLL, push_url="https://portal/p") == {"method": "urn:ietf:rfc:8936"}


def test_stream_request_has_the_token_only_in_its_header() -> None:
    request = build_stream_request("PATCH", f"{ISSUER}/s", access_token="t", body={"a": 1}, stream_id="s 1")
    assert (request.method, request.url) == ("PATCH", f"{ISSUER}/s?stream_id=s%201")
    assert (request.headers["Authorization"], json.loads(request.body or b"")) == ("Bearer t", {"a": 1})
    with raises(MetadataError):
        build_stream_request("GET", "", access_token="t")


@pytest.mark.parametrize(
    "changes",
    [
        *({"iss": "https://other.example"}, {"stream_id": 7}, {"delivery": None}, {"events_delivered": "x"}),
        *({"stream_id": "s\x1b[2J"}, {"aud": ["portal", "\r"]}, {"delivery": {"endpoint_url": "https://t/\x9b"}}),
    ],
)
def test_stream_with_one_fault_is_refused(declare: Declare, make_response: Respond, changes: dict[str, Any]) -> None:
    context: dict[str, Any] = {"declaration": declare(), "signals": POLL}
    stream = process_configuration_response(make_response(STREAM, status=201), **context)
    assert (stream.stream_id, stream.audience, stream.events_delivered) == ("s1", ("portal",), ("urn:x",))
    with raises(MetadataError):
        process_configuration_response(make_response({**STREAM, **changes}, status=201), **context)


def test_stream_that_is_polled_over_http_is_refused(declare: Declare, make_response: Respond) -> None:
    delivery = {**STREAM["delivery"], "endpoint_url": "http://op.example/poll"}  # type: ignore[dict-item]
    with raises(TransportError):
        process_configuration_response(
            make_response({**STREAM, "delivery": delivery}), declaration=declare(), signals=POLL
        )


@pytest.mark.parametrize(
    ("body", "status", "count"),
    [([STREAM, STREAM], 200, 2), ([], 200, 0), (STREAM, 200, 1), ({"error": "x"}, 404, 0)],
)
def test_streams_are_a_list_or_the_only_one(
    declare: Declare, make_response: Respond, body: Any, status: int, count: int
) -> None:
    context: dict[str, Any] = {"declaration": declare(), "signals": POLL}
    assert len(process_configurations_response(make_response(body, status=status), **context)) == count
    for answer in (make_response(b"[", status=200), make_response(body, status=403), make_response([7])):
        with raises(MetadataError):
            process_configurations_response(answer, **context)


def test_status_is_one_of_three(make_response: Respond) -> None:
    assert process_status_response(make_response({"status": "paused"})) == "paused"
    for answer in (make_response({"status": "x"}), make_response({"status": "paused"}, status=404)):
        with raises(MetadataError):
            process_status_response(answer)


def test_poll_request_acknowledges_and_does_not_wait() -> None:
    options: dict[str, Any] = {"access_token": "t", "max_events": 5}
    request = build_poll_request(f"{ISSUER}/poll", acknowledged=["a"], errors={"b": ("invalid_key", "text")}, **options)
    assert json.loads(request.body or b"") == {
        "maxEvents": 5,
        "returnImmediately": True,
        "ack": ["a"],
        "setErrs": {"b": {"err": "invalid_key", "description": "text"}},
    }
    empty = build_poll_request(f"{ISSUER}/poll", acknowledged=[], errors={}, **options)
    assert json.loads(empty.body or b"") == {"maxEvents": 5, "returnImmediately": True}


def test_poll_response_has_texts_by_jti(make_response: Respond) -> None:
    polled = process_poll_response(make_response({"sets": {"a": "x.y.z"}, "moreAvailable": True}))
    assert (polled.tokens, polled.more_available) == ({"a": "x.y.z"}, True)
    assert process_poll_response(make_response({"sets": {}})).more_available is False
    assert process_poll_response(make_response(b"", status=204)).tokens == {}
    for body in ({"sets": []}, {"sets": {"a": 7}}, b"[]"):
        with raises(MetadataError):
            process_poll_response(make_response(body))
    with raises(TransportError):
        process_poll_response(make_response({"sets": {}}, status=503))


def test_client_credentials_are_requested_with_the_scope(
    declare: Declare, metadata: ProviderMetadata, freshness: AssertionFreshness
) -> None:
    request = build_client_credentials_request(
        scope="ssf.read", metadata=metadata, declaration=declare(), freshness=freshness
    )
    assert (request.url, request.body) == (f"{ISSUER}/token", b"grant_type=client_credentials&scope=ssf.read")


def test_client_credentials_response_needs_no_id_token_and_a_bearer_token(
    declare: Declare, make_response: Respond
) -> None:
    body = {"access_token": "t", "token_type": "Bearer", "expires_in": 60}
    assert process_client_credentials_response(make_response(body), declaration=declare()).access_token == "t"
    with raises(TokenResponseError):
        process_client_credentials_response(make_response({**body, "token_type": "mac"}), declaration=declare())
    with raises(TokenError):
        process_client_credentials_response(make_response(body, status=401), declaration=declare())
