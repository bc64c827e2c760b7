"""Refresh without a session (R8). Spec: OIDC Core 12."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import pytest

from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.errors import Code, PhiOidcError, RefreshMismatch, TokenError
from django_phi_oidc.http.transport import TransportResponse
from django_phi_oidc.oidc.client_auth import AssertionFreshness
from django_phi_oidc.oidc.jwks import JSONWebKeySet
from django_phi_oidc.oidc.metadata import ProviderMetadata
from django_phi_oidc.oidc.refresh import build_refresh_request, process_refresh_response, verify_refreshed_id_token
from tests.support.error_codes import raises

NOW = int(datetime(2026, 11, 24, 12, 0, tzinfo=UTC).timestamp())
ORIGINAL = {
    "iss": "https://op.example",
    "aud": ["portal"],
    "exp": NOW - 3300,
    "iat": NOW - 3600,
    "auth_time": NOW - 7200,
    "nonce": "the-nonce",
    "sub": "yRq8c3ZbZ0xA",
}
REFRESHED = {**ORIGINAL, "exp": NOW + 300, "iat": NOW}
ABSENT = object()
MEMBERS = {"access_token": "at2", "token_type": "Bearer", "expires_in": 300}
MakeResponse = Callable[..., TransportResponse]
Declare = Callable[..., ProviderDeclaration]
Sign = Callable[..., str]
Verify = Callable[..., Any]


def claims(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**REFRESHED, **changes}.items() if value is not ABSENT}


@pytest.fixture(scope="session")
def verify(keys: JSONWebKeySet, declare: Declare, now: datetime) -> Verify:
    """verify(token, original={…}, trusted_audiences=…)."""

    def verify(token: str, *, original: dict[str, Any] = ORIGINAL, **declared: Any) -> Any:
        return verify_refreshed_id_token(
            token, original_claims=original, keys=keys, declaration=declare(**declared), access_token="at2", now=now
        )

    return verify


def test_build_refresh_request_token_is_only_in_the_body(
    metadata: ProviderMetadata, declare: Declare, freshness: AssertionFreshness
) -> None:
    request = build_refresh_request(
        metadata=metadata, declaration=declare(), refresh_token="rt/secret", freshness=freshness
    )
    assert (request.method, request.url) == ("POST", metadata.token_endpoint)
    assert parse_qs((request.body or b"").decode(), strict_parsing=True) == {
        "grant_type": ["refresh_token"],
        "refresh_token": ["rt/secret"],
    }
    assert request.headers["Authorization"].startswith("Basic ")
    assert "secret" not in repr(request)


def test_build_refresh_request_names_the_declared_resource(
    metadata: ProviderMetadata, declare: Declare, freshness: AssertionFreshness
) -> None:
    """RFC 8707 2.2."""
    declared = declare(resource="https://api.example/fhir")
    request = build_refresh_request(metadata=metadata, declaration=declared, refresh_token="rt", freshness=freshness)
    assert parse_qs((request.body or b"").decode())["resource"] == ["https://api.example/fhir"]


def test_process_refresh_response_id_token_and_refresh_token_are_optional(
    make_response: MakeResponse, declare: Declare
) -> None:
    tokens = process_refresh_response(make_response(MEMBERS), declaration=declare())
    assert (tokens.access_token, tokens.id_token, tokens.refresh_token) == ("at2", "", "")
    tokens = process_refresh_response(
        make_response({**MEMBERS, "id_token": "a.b.c", "refresh_token": "rt2"}), declaration=declare()
    )
    assert (tokens.id_token, tokens.refresh_token) == ("a.b.c", "rt2")


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (TokenError, {"body": {"error": "invalid_grant"}, "status": 400}),
        (Code.TOKEN_RESPONSE_INVALID, {"body": [MEMBERS]}),
        (Code.ACCESS_TOKEN_MISSING, {"body": {**MEMBERS, "access_token": ""}}),
        (Code.ID_TOKEN_MISSING, {"body": {**MEMBERS, "id_token": ""}}),
        (Code.ID_TOKEN_MISSING, {"body": {**MEMBERS, "id_token": None}}),
    ],
)
def test_process_refresh_response_one_fault_is_refused(
    make_response: MakeResponse, declare: Declare, error: type[PhiOidcError], refused: dict[str, Any]
) -> None:
    assert process_refresh_response(make_response(MEMBERS), declaration=declare())
    with raises(error):
        process_refresh_response(make_response(**refused), declaration=declare())


TWO = {"trusted_audiences": ("api",)}
ROWS: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    # name, declaration, original, accepted, refused
    ("another sub", {}, {}, {}, {"sub": "mallory"}),
    ("sub missing", {}, {}, {}, {"sub": ABSENT}),
    ("one more aud", TWO, {"azp": "portal"}, {"azp": "portal"}, {"aud": ["portal", "api"], "azp": "portal"}),
    ("azp added", {}, {}, {}, {"azp": "portal"}),
    ("azp removed", {}, {"azp": "portal"}, {"azp": "portal"}, {}),
    ("auth_time is now", {}, {}, {"auth_time": ABSENT}, {"auth_time": NOW}),
    ("auth_time added", {}, {"auth_time": ABSENT}, {"auth_time": ABSENT}, {"auth_time": NOW - 7200}),
    ("another nonce", {}, {}, {"nonce": ABSENT}, {"nonce": "another"}),
    ("nonce null", {}, {}, {}, {"nonce": None}),
]


@pytest.mark.parametrize(
    ("declared", "before", "accepted", "refused"), [pytest.param(*row[1:], id=row[0]) for row in ROWS]
)
def test_verify_refreshed_id_token_one_changed_claim_is_refresh_mismatch(
    verify: Verify,
    sign: Sign,
    declared: dict[str, Any],
    before: dict[str, Any],
    accepted: dict[str, Any],
    refused: dict[str, Any],
) -> None:
    original = {name: value for name, value in {**ORIGINAL, **before}.items() if value is not ABSENT}
    assert verify(sign(claims(**accepted)), original=original, **declared) == claims(**accepted)
    with raises(RefreshMismatch) as caught:
        verify(sign(claims(**refused)), original=original, **declared)
    assert caught.value.code == "refresh_mismatch"


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (Code.ISS_INVALID, {"iss": "https://evil.example"}),
        (Code.AUD_INVALID, {"aud": "another client"}),
        (Code.EXP_INVALID, {"exp": NOW - 60}),
        (Code.AT_HASH_INVALID, {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}),
    ],
)
def test_verify_refreshed_id_token_is_verified_like_an_id_token(
    verify: Verify, sign: Sign, error: type[PhiOidcError], refused: dict[str, Any]
) -> None:
    assert verify(sign(claims())) == REFRESHED
    with raises(error):
        verify(sign(claims(**refused)))


def test_verify_refreshed_id_token_damaged_after_signing_is_signature_invalid(verify: Verify, sign: Sign) -> None:
    token = sign(claims())
    with raises(Code.SIGNATURE_INVALID):
        verify(token.rpartition(".")[0] + ".AAAA")
