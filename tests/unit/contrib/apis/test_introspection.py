"""RFC 7662: the request, and each rule that refuses a response, next to an accepted one that differs in one thing."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from django_phi_oidc.config.client_keys import ClientKey
from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.contrib.apis.access_token import AccessToken, ResourceServer
from django_phi_oidc.contrib.apis.declaration import APIDeclaration
from django_phi_oidc.contrib.apis.introspection import (
    build_introspection_request,
    process_introspection_response,
)
from django_phi_oidc.contrib.common.api_errors import AccessTokenInvalid, IntrospectionFailed
from django_phi_oidc.http.transport import TransportResponse
from django_phi_oidc.oidc.client_auth import AssertionFreshness
from django_phi_oidc.oidc.metadata import ProviderMetadata
from tests.support.protocol_fixtures import ISSUER

NOW = int(datetime(2026, 11, 24, 12, 0, tzinfo=UTC).timestamp())
API = APIDeclaration(provider="default", audience="https://portal.example/api", method="introspection")
ANSWER: dict[str, Any] = {
    "active": True,
    "iss": ISSUER,
    "aud": API.audience,
    "sub": "yRq8c3ZbZ0xA",
    "client_id": "app",
    "scope": "chart.read",
    "token_type": "Bearer",
    "exp": NOW + 300,
    "username": "not used",
}
ABSENT = object()

Declare = Callable[..., ProviderDeclaration]
Process = Callable[..., AccessToken]


def members(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**ANSWER, **changes}.items() if value is not ABSENT}


@pytest.fixture(scope="session")
def process(declare: Declare, make_response: Callable[..., TransportResponse], now: datetime) -> Process:
    def process(body: Any, *, status: int = 200, **declared: Any) -> AccessToken:
        resource_server = ResourceServer(API, declare(**declared))
        return process_introspection_response(
            make_response(body, status=status), resource_server=resource_server, now=now
        )

    return process


ONE: dict[str, Any] = {}
ROWS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    # rule, accepted changes, refused changes
    ("token_inactive", ONE, {"active": False}),
    ("iss_invalid", {"iss": ABSENT}, {"iss": "https://other.example"}),
    ("aud_invalid", {"aud": ["x", API.audience]}, {"aud": ["x"]}),
    ("aud_invalid", ONE, {"aud": ABSENT}),
    ("aud_invalid", ONE, {"aud": "portal"}),
    ("exp_invalid", ONE, {"exp": ABSENT}),
    ("exp_invalid", {"exp": NOW - 29}, {"exp": NOW - 30}),
    ("nbf_invalid", {"nbf": NOW + 30}, {"nbf": NOW + 31}),
    ("sub_invalid", ONE, {"sub": ABSENT}),
    ("client_id_invalid", ONE, {"client_id": ABSENT}),
    ("client_for_itself", {"client_id": "app"}, {"client_id": ANSWER["sub"]}),
    ("scope_invalid", {"scope": ABSENT}, {"scope": ["chart.read"]}),
    ("token_type_unsupported", {"token_type": "bearer"}, {"token_type": "mac"}),
    ("cnf_missing", {"token_type": "DPoP", "cnf": {"jkt": "A" * 43}}, {"token_type": "DPoP"}),
    (
        "cnf_missing",
        {"token_type": "dpop", "cnf": {"jkt": "A" * 43}},
        {"token_type": "DPoP", "cnf": {"x5t#S256": "A" * 43}},
    ),
    ("token_type_unsupported", {"token_type": ABSENT}, {"token_type": "refresh_token"}),
    ("token_type_unsupported", ONE, {"token_type": ["Bearer"]}),
    ("cnf_unsupported", ONE, {"cnf": {"jkt": "x"}}),
]


@pytest.mark.parametrize(("rule", "accepted", "refused"), ROWS)
def test_response_with_one_fault_is_refused(
    rule: str, accepted: dict[str, Any], refused: dict[str, Any], process: Process
) -> None:
    assert process(members(**accepted)).client_id == "app"
    with pytest.raises(AccessTokenInvalid) as fault:
        process(members(**refused))
    assert fault.value.rule == rule


def test_unsupported_token_type_is_not_a_provider_fault(process: Process) -> None:
    with pytest.raises(AccessTokenInvalid) as fault:
        process({"error": "unsupported_token_type"}, status=400)
    assert fault.value.rule == "token_type_unsupported"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (ANSWER, 201),
        (ANSWER, 401),
        (ANSWER, 503),
        ({**ANSWER, "active": "true"}, 200),
        ({**ANSWER, "active": 1}, 200),
        ({"error": "invalid_client"}, 200),
        ({"error": "invalid_request"}, 400),
        ({"error": "unsupported_token_type"}, 200),
        ([], 400),
        ([ANSWER], 200),
        (b"active", 200),
    ],
)
def test_invalid_response_is_introspection_failed(body: Any, status: int, process: Process) -> None:
    with pytest.raises(IntrospectionFailed):
        process(body, status=status)


def test_response_contains_the_access_token(process: Process) -> None:
    access_token = process(members(acr="urn:example:loa:3", auth_time=NOW - 5))
    assert (access_token.sub, access_token.scopes, access_token.acr) == (
        "yRq8c3ZbZ0xA",
        {"chart.read"},
        "urn:example:loa:3",
    )
    assert access_token.auth_time == datetime.fromtimestamp(NOW, UTC) - timedelta(seconds=5)


def test_request_is_authenticated_with_the_token_in_the_body(
    declare: Declare, metadata: ProviderMetadata, client_keys: dict[str, ClientKey], freshness: AssertionFreshness
) -> None:
    known = ProviderMetadata(
        **{name: getattr(metadata, name) for name in metadata.__slots__}
        | {"introspection_endpoint": f"{ISSUER}/introspect"}
    )
    ask: dict[str, Any] = {"metadata": known, "token": "t0ken+/=", "freshness": freshness}
    request = build_introspection_request(declaration=declare(), **ask)
    assert (request.method, request.url) == ("POST", f"{ISSUER}/introspect")
    assert request.body == b"token=t0ken%2B%2F%3D&token_type_hint=access_token"
    assert request.headers["Authorization"].startswith("Basic ")
    signing = {
        "token_endpoint_auth_method": "private_key_jwt",
        "client_secret": "",
        "client_keys": (client_keys["p256"],),
    }
    signed = build_introspection_request(declaration=declare(**signing), **ask)
    assert b"client_assertion=" in (signed.body or b"")
    assert "t0ken" not in repr(request) + repr(signed)


def test_request_without_an_endpoint_is_introspection_failed(
    declare: Declare, metadata: ProviderMetadata, freshness: AssertionFreshness
) -> None:
    with pytest.raises(IntrospectionFailed):
        build_introspection_request(metadata=metadata, declaration=declare(), token="t", freshness=freshness)
