"""Requests and responses show no secrets; media types. Spec: RFC 9110 8.3.1."""

import dataclasses
from datetime import timedelta

import pytest

from django_phi_oidc.errors import Code, TransportError
from django_phi_oidc.http.transport import (
    TransportRequest,
    TransportResponse,
    get_media_type,
    raise_for_outage,
)


@pytest.mark.parametrize("status", [100, 200, 302, 400, 404, 428, 430, 499])
def test_status_that_is_no_outage_raises_nothing(status: int) -> None:
    response = TransportResponse(status=status, headers={"retry-after": "5"}, body=b"")
    assert raise_for_outage(response) is None
    with pytest.raises(TransportError):
        raise_for_outage(dataclasses.replace(response, status=503))


@pytest.mark.parametrize("status", [429, 500, 503, 599])
@pytest.mark.parametrize(("header", "seconds"), [("5", 5), ("-5", None), ("soon", None), (None, None)])
def test_outage_has_the_time_that_the_provider_asks_to_wait(
    status: int, header: str | None, seconds: int | None
) -> None:
    headers = {} if header is None else {"retry-after": header}
    with pytest.raises(TransportError) as caught:
        raise_for_outage(TransportResponse(status=status, headers=headers, body=b""))
    assert caught.value.code is Code.PROVIDER_UNAVAILABLE
    assert caught.value.retry_after == (None if seconds is None else timedelta(seconds=seconds))


def test_request_repr_shows_only_method_and_path() -> None:
    request = TransportRequest(
        method="POST",
        url="https://op.example/token?code=query-secret?more",
        headers={"Authorization": "Basic header-secret"},
        body=b"client_secret=body-secret",
    )
    assert repr(request) == "Request(POST https://op.example/token)"


def test_response_repr_shows_only_status_and_size() -> None:
    response = TransportResponse(
        status=200, headers={"set-cookie": "header-secret"}, body=b'{"access_token":"body-secret"}'
    )
    assert repr(response) == "Response(200, 30 bytes)"


def test_request_assignment_is_refused() -> None:
    request = TransportRequest(method="GET", url="https://op.example/", headers={})
    with pytest.raises(dataclasses.FrozenInstanceError):
        request.url = "https://evil.example/"  # type: ignore[misc]
    assert request.url == "https://op.example/"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"content-type": "application/json"}, "application/json"),
        ({"content-type": "Application/JSON; charset=UTF-8"}, "application/json"),
        ({"content-type": " application/json ;charset=utf-8"}, "application/json"),
        ({"content-type": "application/jwt"}, "application/jwt"),
        ({"content-type": ""}, ""),
        ({}, ""),
    ],
)
def test_media_type_any_header_is_bare_and_lower_case(headers: dict[str, str], expected: str) -> None:
    assert get_media_type(TransportResponse(status=200, headers=headers, body=b"")) == expected
