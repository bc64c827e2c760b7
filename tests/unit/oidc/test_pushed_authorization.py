"""R3: pushed authorization requests. Spec: RFC 9126."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc.config.client_keys import ClientKey
from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.errors import Code, PARError, PushedRequestError
from django_phi_oidc.http.transport import TransportResponse
from django_phi_oidc.oidc.client_auth import AssertionFreshness
from django_phi_oidc.oidc.jose import parse_compact_jws
from django_phi_oidc.oidc.metadata import ProviderMetadata
from django_phi_oidc.oidc.pushed_authorization import build_par_request, is_par_enabled, process_par_response
from tests.support.error_codes import raises

MakeResponse = Callable[..., TransportResponse]
Declare = Callable[..., ProviderDeclaration]
# RFC 9126 2.2.
URI = "urn:ietf:params:oauth:request_uri:6esc_11ACC5bwc014ltc14eY22c"
MEMBERS = {"request_uri": URI, "expires_in": 60}
ABSENT = object()
LEFT = {"client_id": "portal", "request_uri": URI}


@pytest.fixture(scope="session")
def pushing(metadata: ProviderMetadata) -> ProviderMetadata:
    return replace(metadata, pushed_authorization_request_endpoint="https://op.example/par")


def members(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**MEMBERS, **changes}.items() if value is not ABSENT}


@pytest.mark.parametrize(
    ("par", "offered", "pushed"),
    [("auto", True, True), ("auto", False, False), ("require", True, True), ("never", True, False)],
)
def test_par_is_enabled_if_supported_unless_never(
    metadata: ProviderMetadata, pushing: ProviderMetadata, declare: Declare, par: str, offered: bool, pushed: bool
) -> None:
    assert is_par_enabled(metadata=pushing if offered else metadata, declaration=declare(par=par)) is pushed


def test_build_par_request_parameters_are_only_in_the_body(
    pushing: ProviderMetadata, declare: Declare, freshness: AssertionFreshness
) -> None:
    request = build_par_request(
        metadata=pushing,
        declaration=declare(),
        parameters={"client_id": "portal", "state": "the-state"},
        freshness=freshness,
    )
    assert (request.method, request.url) == ("POST", "https://op.example/par")
    assert request.headers["Authorization"].startswith("Basic ")
    assert parse_qs((request.body or b"").decode(), strict_parsing=True) == {
        "client_id": ["portal"],
        "state": ["the-state"],
    }
    assert "the-state" not in repr(request)


@pytest.mark.parametrize("audience", ["issuer", "token_endpoint"])
def test_build_par_request_assertion_has_the_audience_of_all_endpoints(
    pushing: ProviderMetadata,
    declare: Declare,
    freshness: AssertionFreshness,
    client_keys: dict[str, ClientKey],
    audience: str,
) -> None:
    declaration = declare(
        token_endpoint_auth_method="private_key_jwt",
        client_keys=(client_keys["p256"],),
        client_assertion_audience=audience,
    )
    request = build_par_request(metadata=pushing, declaration=declaration, parameters={}, freshness=freshness)
    (assertion,) = parse_qs((request.body or b"").decode())["client_assertion"]
    assert parse_compact_jws(assertion).payload["aud"] == getattr(pushing, audience)


OK: dict[str, Any] = {"body": MEMBERS, "status": 201}
TABLES: dict[Code, list[tuple[str, dict[str, Any], dict[str, Any]]]] = {
    # name, accepted response, refused response
    Code.PAR_ERROR: [
        *[
            (f"status {status}", OK, {**OK, "status": status})
            for status in (199, 300, 302, 400, 401, 405, 413, 429, 500, 503)
        ],
        ("an error at 201", OK, {**OK, "body": members(error="invalid_request")}),
        ("an error at 200", OK, {"body": {"error": "invalid_request"}}),
        ("HTML at 502", OK, {"body": b"<html>", "status": 502, "content_type": "text/html"}),
    ],
    Code.PAR_RESPONSE_INVALID: [
        *[(f"status {status}", OK, {**OK, "status": status}) for status in (200, 202, 204)],
        ("no request_uri", OK, {**OK, "body": members(request_uri=ABSENT)}),
        ("request_uri empty", OK, {**OK, "body": members(request_uri="")}),
        ("request_uri null", OK, {**OK, "body": members(request_uri=None)}),
        ("request_uri a list", OK, {**OK, "body": members(request_uri=[URI])}),
        ("request_uri with a space", OK, {**OK, "body": members(request_uri=URI + " x")}),
        ("request_uri with a line end", OK, {**OK, "body": members(request_uri=URI + "\n")}),
        ("request_uri not ASCII", OK, {**OK, "body": members(request_uri=URI + "é")}),
        ("request_uri with DEL", OK, {**OK, "body": members(request_uri=URI + "\x7f")}),
        ("request_uri of 513 characters", OK, {**OK, "body": members(request_uri="u" * 513)}),
        ("no expires_in", OK, {**OK, "body": members(expires_in=ABSENT)}),
        ("expires_in zero", {**OK, "body": members(expires_in=1)}, {**OK, "body": members(expires_in=0)}),
        ("expires_in negative", OK, {**OK, "body": members(expires_in=-60)}),
        ("expires_in text", OK, {**OK, "body": members(expires_in="60")}),
        ("expires_in true", OK, {**OK, "body": members(expires_in=True)}),
        ("expires_in a float", OK, {**OK, "body": members(expires_in=60.0)}),
        ("HTML", OK, {**OK, "body": b"<html>"}),
        ("a list", OK, {**OK, "body": [MEMBERS]}),
        ("member twice", OK, {**OK, "body": b'{"request_uri":"evil",' + json.dumps(MEMBERS).encode()[1:]}),
        (
            "sent as text",
            {**OK, "content_type": "application/json;charset=UTF-8"},
            {**OK, "content_type": "text/plain"},
        ),
    ],
}
ROWS = [pytest.param(error, *row[1:], id=f"{error}: {row[0]}") for error, rows in TABLES.items() for row in rows]


@pytest.mark.parametrize(("error", "accepted", "refused"), ROWS)
def test_process_par_response_one_fault_is_refused(
    make_response: MakeResponse,
    declare: Declare,
    error: Code,
    accepted: dict[str, Any],
    refused: dict[str, Any],
) -> None:
    assert process_par_response(make_response(**accepted), declaration=declare()) == LEFT
    with raises(error) as caught:
        process_par_response(make_response(**refused), declaration=declare())
    assert caught.value.code is error
    assert caught.value.__context__ is None


def test_process_par_response_every_code_of_r3_has_a_table() -> None:
    assert {code for code in Code if code.rule == "R3"} == set(TABLES)


def test_process_par_response_longest_request_uri_is_accepted(make_response: MakeResponse, declare: Declare) -> None:
    longest = "u" * 512
    response = make_response(members(request_uri=longest), status=201)
    assert process_par_response(response, declaration=declare())["request_uri"] == longest


@pytest.mark.parametrize(("status", "provider_fault"), [(400, False), (401, False), (429, True), (500, True)])
def test_process_par_response_error_is_attributed_to_the_provider_or_client(
    make_response: MakeResponse, declare: Declare, status: int, provider_fault: bool
) -> None:
    with raises(PARError) as caught:
        error, headers = {"error": "invalid_request"}, {"retry-after": "90"}
        process_par_response(make_response(error, status=status, headers=headers), declaration=declare())
    assert caught.value.is_provider_fault is provider_fault
    assert caught.value.retry_after == timedelta(seconds=90)


@pytest.mark.parametrize(
    ("sent", "named"),
    [
        ("invalid_client", "invalid_client"),
        ("invalid_request", "invalid_request"),
        ("jane@op.example", "other"),
        (["invalid_request"], "other"),
        (None, "other"),
    ],
)
def test_process_par_response_error_message_contains_only_registered_codes(
    make_response: MakeResponse, declare: Declare, sent: Any, named: str
) -> None:
    body = {"error": sent, "error_description": "the redirect URI of Jane"}
    with raises(PARError) as caught:
        process_par_response(make_response(body, status=400), declaration=declare())
    assert str(caught.value) == f"The PAR endpoint answered 400, error {named} (RFC 9126 2.3)."
    assert (caught.value.status, caught.value.error) == (400, named)


@given(
    changes=st.dictionaries(
        st.sampled_from([*MEMBERS, "error"]), st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    ),
    status=st.sampled_from([200, 201, 201, 400, 503]),
    damage=st.binary(max_size=10),
)
def test_process_par_response_any_response_is_processed_or_refused_by_our_error(
    make_response: MakeResponse, declare: Declare, changes: dict[str, Any], status: int, damage: bytes
) -> None:
    for body in (json.dumps({**MEMBERS, **changes}).encode(), damage):
        try:
            result: object = process_par_response(make_response(body, status=status), declaration=declare())
        except PushedRequestError as error:
            result = error
        assert isinstance(result, dict | PushedRequestError)
