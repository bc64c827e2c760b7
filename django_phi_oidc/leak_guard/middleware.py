"""Middleware that reports or blocks responses with leaked secrets. A safety net, not an access
control.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render

from .. import conf
from .._internal import clock
from .._internal.request_secrets import SecretLocation, track_secrets
from ..access.responses import is_navigation, render_problem, set_private_headers
from ..audit.recorder import raise_audit_alert
from ..audit.request_context import get_request_id
from ..errors import AuditUnavailable, KeyMissing
from .detector import find_leaks, find_leaks_in_url

logger = logging.getLogger("django_phi_oidc.leakage")
LeaksByLocation = dict[SecretLocation, list[str]]
REQUEST_LOCATIONS: frozenset[SecretLocation] = frozenset({"url", "referer", "request_cookie"})
"""These leaked before the request arrived, so they are reported only: blocking the response would
not help.
"""
BLOCKED_CODE = "leak_blocked"
CALLBACK_URL_NAME = "oidc_authentication_callback"
_TEXT_CONTENT_TYPES = ("text/", "json", "xml", "javascript", "x-www-form-urlencoded")


class LeakageGuardMiddleware:
    """Finds tokens, codes and revealed claims in the URL, Referer and cookies of a request, and in
    its response.

    Revealed claims belong only in the body of the response that revealed them. With LEAKAGE_GUARD
    `report`, a log line and an alert event name the kind and the location, never the value. With
    `block`, the response is also replaced by a page with status 500.
    NOT checked: streams, compressed bodies, other encodings, bodies of requests.
    """

    sync_capable = True
    async_capable = True

    def __init__(
        self, get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]
    ) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.is_async:
            return self._call_async(request)
        with track_secrets():
            response = cast(HttpResponseBase, self.get_response(request))
            leaks = _find_leaks(request, response)

        if leaks:
            return _apply_leak_policy(request, response, leaks)
        return response

    async def _call_async(self, request: HttpRequest) -> HttpResponseBase:
        with track_secrets():
            response = await cast(Awaitable[HttpResponseBase], self.get_response(request))
            leaks = _find_leaks(request, response)
        if leaks:
            return await sync_to_async(_apply_leak_policy)(request, response, leaks)
        return response


def _find_leaks(request: HttpRequest, response: HttpResponseBase) -> LeaksByLocation:
    """Return the kinds of leaked secrets by location. The request is checked last, when all its
    secrets are known.
    """
    leaks = (*_iter_request_leaks(request), *_iter_response_leaks(response))
    result = {}
    for location, kinds in leaks:
        if kinds:
            result[location] = kinds
    return result


def _iter_request_leaks(request: HttpRequest) -> Iterator[tuple[SecretLocation, list[str]]]:
    # The protocol puts the code into the URL of the callback.
    if request.resolver_match is None or request.resolver_match.url_name != CALLBACK_URL_NAME:
        yield (
            "url",
            find_leaks_in_url(f"{request.path}?{request.META.get('QUERY_STRING', '')}", "url"),
        )
    if referer := request.META.get("HTTP_REFERER"):
        yield "referer", find_leaks_in_url(referer, "referer")
    if cookies := request.META.get("HTTP_COOKIE"):
        yield "request_cookie", find_leaks_in_url(cookies, "request_cookie")


def _iter_response_leaks(response: HttpResponseBase) -> Iterator[tuple[SecretLocation, list[str]]]:
    headers = {name.lower(): value for name, value in response.items()}
    if location := headers.pop("location", None):
        yield "location", find_leaks_in_url(location, "location")
    yield "header", find_leaks_in_url("\n".join(headers.values()), "header")
    if response.cookies:
        cookies = (f"{name}={morsel.value}" for name, morsel in response.cookies.items())
        yield "cookie", find_leaks_in_url("\n".join(cookies), "cookie")
    content_type = headers.get("content-type", "").lower()
    is_text = "content-encoding" not in headers and any(
        kind in content_type for kind in _TEXT_CONTENT_TYPES
    )
    if isinstance(response, HttpResponse) and is_text:
        yield "body", find_leaks(response.content.decode("utf-8", "replace"), "body")


def _apply_leak_policy(
    request: HttpRequest, response: HttpResponseBase, leaks: LeaksByLocation
) -> HttpResponseBase:
    """Report the leaks, and return the response to send."""
    # The route, not the path: the path may contain the secret.
    if request.resolver_match:
        view = request.resolver_match.route
    else:
        view = ""

    for location, kinds in leaks.items():
        logger.error(
            "Leaked: %s in %s, view=%s request=%s", kinds, location, view, get_request_id(request)
        )
        try:
            raise_audit_alert(f"leak_{location}", now=clock.now())
        except (AuditUnavailable, KeyMissing):
            logger.exception("Could not record the alert for this leak.")
    if conf.leakage_guard() == "report" or leaks.keys() <= REQUEST_LOCATIONS:
        return response
    if is_navigation(request):
        page = render(
            request,
            "django_phi_oidc/leak_blocked.html",
            {"reference": get_request_id(request)},
            status=500,
        )
        return set_private_headers(page)
    return render_problem(500, "The response was withheld", code=BLOCKED_CODE)
