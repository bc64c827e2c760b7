"""What stands around every response: the content security policy, and whose word on https is taken."""

import ipaddress
from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any
from urllib.parse import urlsplit

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.decorators import sync_and_async_middleware

from django_phi_oidc import conf

PAGES = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; "
    "form-action {forms}; base-uri 'none'; frame-ancestors 'none'"
)
ADMIN = "default-src 'self'; img-src 'self' data:; form-action {forms}; base-uri 'none'; frame-ancestors 'none'"


def policy(path: str) -> str:
    """Return the content security policy of a page: scripts are files of ours, and nothing is from elsewhere.

    Forms may lead to a provider, because Chromium holds form-action against the redirect that follows a sign-out.
    """
    origins = {f"{parts.scheme}://{parts.netloc}" for parts in (urlsplit(p.issuer) for p in conf.providers().values())}
    template = ADMIN if path.startswith(reverse("admin:index")) else PAGES
    return template.format(forms=" ".join(["'self'", *sorted(origins)]))


def believed(address: str) -> bool:
    """Return whether the forwarding headers of that peer are believed; all are where no network is declared."""
    networks = conf.trusted_proxies()
    if not networks:
        return True
    try:
        peer = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(peer in network for network in networks)


@sync_and_async_middleware
def content_security_policy(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Give each response the policy of its path, unless the view gave it one."""

    def protected(request: HttpRequest, response: HttpResponse) -> HttpResponse:
        response.headers.setdefault("Content-Security-Policy", policy(request.path))
        return response

    if iscoroutinefunction(get_response):

        async def asynchronous(request: HttpRequest) -> HttpResponse:
            return protected(request, await get_response(request))

        return asynchronous
    return lambda request: protected(request, get_response(request))


@sync_and_async_middleware
def forwarded_proto(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Drop X-Forwarded-Proto of a peer that is no trusted proxy, before anybody asks whether the request is https."""

    def cleaned(request: HttpRequest) -> HttpRequest:
        if not believed(request.META.get("REMOTE_ADDR", "")):
            request.META.pop("HTTP_X_FORWARDED_PROTO", None)
        return request

    if iscoroutinefunction(get_response):

        async def asynchronous(request: HttpRequest) -> HttpResponse:
            return await get_response(cleaned(request))

        return asynchronous
    return lambda request: get_response(cleaned(request))
