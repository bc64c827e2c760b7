"""Whose X-Forwarded-Proto is believed, and which policy stands on which page; by WSGI and by ASGI."""

import asyncio
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings
from portal import headers

from tests.settings import PHI_OIDC

TRUSTED = {**PHI_OIDC, "TRUSTED_PROXIES": ["10.0.0.0/8"]}


def answer(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.META.get("HTTP_X_FORWARDED_PROTO", "-"))


async def answer_async(request: HttpRequest) -> HttpResponse:
    return answer(request)


def through(middleware: Any, request: HttpRequest, *, asynchronous: bool) -> HttpResponse:
    if asynchronous:
        return asyncio.run(middleware(answer_async)(request))
    return middleware(answer)(request)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(("peer", "seen"), [("10.1.2.3", b"https"), ("192.0.2.1", b"-"), ("", b"-")])
def test_forwarded_proto_is_kept_from_a_trusted_proxy_alone(peer: str, seen: bytes, asynchronous: bool) -> None:
    request = RequestFactory().get("/", REMOTE_ADDR=peer, HTTP_X_FORWARDED_PROTO="https")
    with override_settings(PHI_OIDC=TRUSTED):
        assert through(headers.forwarded_proto, request, asynchronous=asynchronous).content == seen


def test_forwarded_proto_without_declared_networks_is_kept() -> None:
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.1", HTTP_X_FORWARDED_PROTO="https")
    assert through(headers.forwarded_proto, request, asynchronous=False).content == b"https"


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(("path", "default"), [("/portal/", "'none'"), ("/admin/auth/user/", "'self'")])
def test_content_security_policy_by_path(path: str, default: str, asynchronous: bool) -> None:
    with override_settings(ROOT_URLCONF="portal.urls"):
        response = through(headers.content_security_policy, RequestFactory().get(path), asynchronous=asynchronous)
    policy = response["Content-Security-Policy"]
    assert f"default-src {default};" in policy
    assert "form-action 'self' https://op.example.test;" in policy
    assert "'unsafe" not in policy


def test_content_security_policy_of_a_view_is_kept() -> None:
    def own(request: HttpRequest) -> HttpResponse:
        return HttpResponse(headers={"Content-Security-Policy": "default-src 'none'"})

    response = headers.content_security_policy(own)(RequestFactory().get("/"))
    assert response["Content-Security-Policy"] == "default-src 'none'"
