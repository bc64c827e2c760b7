"""Middleware for the content security policy and for X-Forwarded-Proto."""

import ipaddress
from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any
from urllib.parse import urlsplit

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.decorators import sync_and_async_middleware

from django_phi_oidc import conf
from django_phi_oidc.audit import conf as audit_conf

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; "
    "form-action {forms}; base-uri 'none'; frame-ancestors 'none'"
)
ADMIN_POLICY = "default-src 'self'; img-src 'self' data:; form-action {forms}; base-uri 'none'; frame-ancestors 'none'"


def build_policy(path: str) -> str:
    """Return the content security policy of a page: no inline scripts and no external resources.

    Forms may lead to a provider, because Chromium applies form-action to the redirect after a sign-out.
    """
    issuers = [urlsplit(provider.issuer) for provider in conf.providers().values()]
    origins = {f"{issuer.scheme}://{issuer.netloc}" for issuer in issuers}
    template = ADMIN_POLICY if path.startswith(reverse("admin:index")) else PAGE_POLICY
    return template.format(forms=" ".join(["'self'", *sorted(origins)]))


def is_trusted_proxy(address: str) -> bool:
    """Return whether forwarding headers of that peer are trusted. Without declared networks, all peers are."""
    networks = audit_conf.trusted_proxies()
    if not networks:
        return True
    try:
        peer = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(peer in network for network in networks)


@sync_and_async_middleware
def content_security_policy(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Set the policy of the path on each response, unless the view has set one."""

    def set_policy(request: HttpRequest, response: HttpResponse) -> HttpResponse:
        response.headers.setdefault("Content-Security-Policy", build_policy(request.path))
        return response

    if iscoroutinefunction(get_response):

        async def asynchronous(request: HttpRequest) -> HttpResponse:
            return set_policy(request, await get_response(request))

        return asynchronous
    return lambda request: set_policy(request, get_response(request))


@sync_and_async_middleware
def forwarded_proto(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Remove X-Forwarded-Proto of untrusted peers, before other code checks whether the request is secure."""

    def remove_untrusted(request: HttpRequest) -> HttpRequest:
        if not is_trusted_proxy(request.META.get("REMOTE_ADDR", "")):
            request.META.pop("HTTP_X_FORWARDED_PROTO", None)
        return request

    if iscoroutinefunction(get_response):

        async def asynchronous(request: HttpRequest) -> HttpResponse:
            return await get_response(remove_untrusted(request))

        return asynchronous
    return lambda request: get_response(remove_untrusted(request))
