"""Revocation. Spec: RFC 7009."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.errors import Code
from django_phi_oidc.http.transport import TransportResponse, parse_retry_after
from django_phi_oidc.oidc.client_auth import AssertionFreshness
from django_phi_oidc.oidc.metadata import ProviderMetadata
from django_phi_oidc.oidc.revocation import (
    RevocationOutcome,
    build_revocation_request,
    process_revocation_response,
)
from tests.support.error_codes import raises

MakeResponse = Callable[..., TransportResponse]
Declare = Callable[..., ProviderDeclaration]


def test_build_revocation_request_token_is_only_in_the_body(
    metadata: ProviderMetadata, declare: Declare, freshness: AssertionFreshness
) -> None:
    request = build_revocation_request(
        metadata=metadata,
        declaration=declare(),
        token="rt/secret",
        token_type_hint="refresh_token",
        freshness=freshness,
    )
    assert (request.method, request.url) == ("POST", metadata.revocation_endpoint)
    assert parse_qs((request.body or b"").decode(), strict_parsing=True) == {
        "token": ["rt/secret"],
        "token_type_hint": ["refresh_token"],
    }
    assert request.headers["Authorization"].startswith("Basic ")
    assert "secret" not in repr(request)


def test_build_revocation_request_without_endpoint_is_revocation_unsupported(
    metadata: ProviderMetadata, declare: Declare, freshness: AssertionFreshness
) -> None:
    with raises(Code.REVOCATION_UNSUPPORTED) as caught:
        build_revocation_request(
            metadata=replace(metadata, revocation_endpoint=""),
            declaration=declare(),
            token="rt",
            token_type_hint="refresh_token",
            freshness=freshness,
        )
    assert caught.value.code == "revocation_unsupported"


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, {"error": "invalid_client"}, ""),
        (400, {"error": "invalid_token"}, ""),
        (400, {"error": "invalid_request"}, "invalid_request"),
        (400, {"error": "unsupported_token_type"}, "unsupported_token_type"),
        (401, {"error": "invalid_client"}, "invalid_client"),
        (401, b"", ""),
        (403, {"error": "access_denied"}, "access_denied"),
        (403, {"error": "the token of Jane"}, "other"),
        (403, {"error": None}, "other"),
        (403, b"<html>", ""),
        (503, {"error": "temporarily_unavailable"}, "temporarily_unavailable"),
    ],
)
def test_process_revocation_response_only_registered_errors_are_named(
    make_response: MakeResponse, status: int, body: Any, error: str
) -> None:
    assert process_revocation_response(make_response(body, status=status)).error == error


@pytest.mark.parametrize(
    ("status", "body", "result"),
    [
        (200, b"", "done"),
        (200, {"error": "invalid_client"}, "done"),
        (200, b"<html>", "done"),
        (400, {"error": "unsupported_token_type"}, "unsupported"),
        (401, {"error": "unsupported_token_type"}, "unsupported"),
        (403, {"error": "unsupported_token_type"}, "unexpected"),
        (401, b"", "retry_slowly"),
        (401, {"error": "invalid_request"}, "retry_slowly"),
        (401, {"error": "invalid_client"}, "retry_slowly"),
        (400, {"error": "invalid_client"}, "retry_slowly"),
        (400, {"error": "invalid_request"}, "refused"),
        (400, {"error": "unauthorized_client"}, "refused"),
        (400, {"error": "server_busy"}, "unexpected"),
        (400, {"error": ["invalid_request"]}, "unexpected"),
        (400, b'{"error":"invalid_request","error":"x"}', "unexpected"),
        (400, b"<html>", "unexpected"),
        (400, {"error": "invalid_token"}, "done"),
        (401, {"error": "invalid_token"}, "retry_slowly"),
        (403, {"error": "invalid_request"}, "unexpected"),
        (403, {"error": "invalid_token"}, "unexpected"),
        (403, {"error": "invalid_client"}, "unexpected"),
        (403, b"", "unexpected"),
        (404, b"", "unexpected"),
        (405, b"", "unexpected"),
        (408, b"", "retry"),
        (421, b"", "retry"),
        (425, b"", "retry"),
        (429, b"", "retry"),
        (429, {"error": "unsupported_token_type"}, "retry"),
        (500, b"", "retry"),
        (503, {"error": "invalid_client"}, "retry"),
        (599, b"", "retry"),
        (100, b"", "retry"),
        (202, b"", "retry"),
        (204, b"", "retry"),
        (302, b"", "retry"),
    ],
)
def test_c1_process_revocation_response_each_response_has_its_outcome(
    make_response: MakeResponse, status: int, body: Any, result: str
) -> None:
    outcome = process_revocation_response(make_response(body, status=status))
    assert (outcome.result, outcome.retry_after) == (result, None)


SENT = "Tue, 24 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "after"),
    [
        pytest.param({"retry-after": "0"}, timedelta(0), id="at once"),
        pytest.param({"retry-after": "120"}, timedelta(minutes=2), id="seconds"),
        pytest.param({"retry-after": " 120 "}, timedelta(minutes=2), id="seconds with white space"),
        pytest.param({"retry-after": "86401"}, timedelta(days=1), id="over a day"),
        pytest.param({"retry-after": "9" * 9}, timedelta(days=1), id="thirty years"),
        pytest.param({"retry-after": "9" * 5000}, None, id="no number of seconds"),
        pytest.param({"retry-after": "-1"}, None, id="negative"),
        pytest.param({"retry-after": "1.5"}, None, id="a fraction"),
        pytest.param({"retry-after": "١"}, None, id="non-ASCII digit"),
        pytest.param({"retry-after": "soon"}, None, id="a word"),
        pytest.param({"retry-after": ""}, None, id="empty"),
        pytest.param({}, None, id="absent"),
        pytest.param({"retry-after": "Tue, 24 Nov 2026 12:05:00 GMT", "date": SENT}, timedelta(minutes=5), id="a date"),
        pytest.param({"retry-after": "Tue, 24 Nov 2026 11:00:00 GMT", "date": SENT}, timedelta(0), id="a past date"),
        pytest.param(
            {"retry-after": "Tue, 24 Nov 2099 11:00:00 GMT", "date": SENT}, timedelta(days=1), id="a far date"
        ),
        pytest.param({"retry-after": "Tue, 24 Nov 2026 12:05:00 GMT"}, None, id="a date without Date"),
        pytest.param({"retry-after": "Tue, 24 Nov 2026 12:05:00 +0000", "date": SENT}, None, id="a date of a mail"),
        pytest.param(
            {"retry-after": "Tue, 24 Nov 2026 12:05:00 GMT", "date": "Tue, 24 Nov 2026 12:00:00 +0000"},
            None,
            id="a malformed Date",
        ),
        pytest.param({"retry-after": "Tue, 99 Nov 2026 12:05:00 GMT", "date": SENT}, None, id="no such day"),
        pytest.param({"retry-after": "Tue, 24 Xyz 2026 12:05:00 GMT", "date": SENT}, None, id="no such month"),
    ],
)
@pytest.mark.parametrize("status", [401, 429, 503])
def test_process_revocation_response_retry_after_is_at_most_a_day(
    make_response: MakeResponse, headers: dict[str, str], after: timedelta | None, status: int
) -> None:
    assert process_revocation_response(make_response(b"", status=status, headers=headers)).retry_after == after


@given(
    status=st.integers(100, 599),
    body=st.binary(max_size=30),
    retry_after=st.text()
    | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{2} (Jan|Feb|Dec) [0-9]{4} [0-9:]{8} GMT", fullmatch=True),
)
def test_process_revocation_response_any_response_has_an_outcome(
    make_response: MakeResponse, status: int, body: bytes, retry_after: str
) -> None:
    response = make_response(body, status=status, headers={"retry-after": retry_after, "date": SENT})
    assert isinstance(process_revocation_response(response), RevocationOutcome)
    assert timedelta(0) <= (parse_retry_after(response) or timedelta(0)) <= timedelta(days=1)
