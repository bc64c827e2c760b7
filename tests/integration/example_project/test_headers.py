"""Trusted X-Forwarded-Proto headers and content security policies, with WSGI and ASGI."""

import asyncio
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings
from portal import headers

from tests.settings import PHI_OIDC

TRUSTED = {**PHI_OIDC, "TRUSTED_PROXIES": ["10.0.0.0/8"]}


def respond(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.META.get("HTTP_X_FORWARDED_PROTO", "-"))


async def respond_async(request: HttpRequest) -> HttpResponse:
    return respond(request)


def call_middleware(middleware: Any, request: HttpRequest, *, asynchronous: bool) -> HttpResponse:
    if asynchronous:
        return asyncio.run(middleware(respond_async)(request))
    return middleware(respond)(request)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(("peer", "expected"), [("10.1.2.3", b"https"), ("192.0.2.1", b"-"), ("", b"-")])
def test_forwarded_proto_is_kept_only_from_a_trusted_proxy(peer: str, expected: bytes, asynchronous: bool) -> None:
    request = RequestFactory().get("/", REMOTE_ADDR=peer, HTTP_X_FORWARDED_PROTO="https")
    with override_settings(PHI_OIDC=TRUSTED):
        assert call_middleware(headers.forwarded_proto, request, asynchronous=asynchronous).content == expected


def test_forwarded_proto_without_declared_networks_is_kept() -> None:
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.1", HTTP_X_FORWARDED_PROTO="https")
    assert call_middleware(headers.forwarded_proto, request, asynchronous=False).content == b"https"


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(("path", "default"), [("/portal/", "'none'"), ("/admin/auth/user/", "'self'")])
def test_content_security_policy_depends_on_the_path(path: str, default: str, asynchronous: bool) -> None:
    with override_settings(ROOT_URLCONF="portal.urls"):
        response = call_middleware(
            headers.content_security_policy, RequestFactory().get(path), asynchronous=asynchronous
        )
    policy = response["Content-Security-Policy"]
    assert f"default-src {default};" in policy
    assert "form-action 'self' https://op.example.test;" in policy
    assert "'unsafe" not in policy


def test_content_security_policy_of_a_view_is_kept() -> None:
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(headers={"Content-Security-Policy": "default-src 'none'"})

    response = headers.content_security_policy(view)(RequestFactory().get("/"))
    assert response["Content-Security-Policy"] == "default-src 'none'"
