"""A guard at the portal's door: what should not leave it is told of, or kept in. A net, not a control."""

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
"""What has leaked before we could see it: told of, and blocked in vain."""
BLOCKED_CODE = "leak_blocked"
CALLBACK_URL_NAME = "oidc_authentication_callback"
_TEXT_CONTENT_TYPES = ("text/", "json", "xml", "javascript", "x-www-form-urlencoded")


class LeakageGuardMiddleware:
    """Finds tokens, codes and revealed claims in a request's URL, Referer and cookies, and in all of its response.

    What was revealed belongs in the body of the response that revealed it, and nowhere else. Under LEAKAGE_GUARD
    `report`, a line in the log and an alert of the trail tell what was found where, and never the value. Under `block`
    the response is withheld, too, and a page of status 500 is sent.
    NOT seen: streams, compressed bodies, other encodings, bodies of requests.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]) -> None:
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
        return _apply_leak_policy(request, response, leaks) if leaks else response

    async def _call_async(self, request: HttpRequest) -> HttpResponseBase:
        with track_secrets():
            response = await cast(Awaitable[HttpResponseBase], self.get_response(request))
            leaks = _find_leaks(request, response)
        return await sync_to_async(_apply_leak_policy)(request, response, leaks) if leaks else response


def _find_leaks(request: HttpRequest, response: HttpResponseBase) -> LeaksByLocation:
    """Return the kinds of what stands where it should not, by place: of the request too, now that all is known."""
    return {place: kinds for place, kinds in (*_iter_request_leaks(request), *_iter_response_leaks(response)) if kinds}


def _iter_request_leaks(request: HttpRequest) -> Iterator[tuple[SecretLocation, list[str]]]:
    # The protocol itself puts a code into the callback's URL.
    if request.resolver_match is None or request.resolver_match.url_name != CALLBACK_URL_NAME:
        yield "url", find_leaks_in_url(f"{request.path}?{request.META.get('QUERY_STRING', '')}", "url")
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
        set_ = (f"{name}={each.value}" for name, each in response.cookies.items())
        yield "cookie", find_leaks_in_url("\n".join(set_), "cookie")
    kind = headers.get("content-type", "").lower()
    if (
        isinstance(response, HttpResponse)
        and "content-encoding" not in headers
        and any(text in kind for text in _TEXT_CONTENT_TYPES)
    ):
        yield "body", find_leaks(response.content.decode("utf-8", "replace"), "body")


def _apply_leak_policy(request: HttpRequest, response: HttpResponseBase, leaks: LeaksByLocation) -> HttpResponseBase:
    """Tell of what was found, and return what is sent."""
    # Not its path: that may be where it stands.
    view = request.resolver_match.route if request.resolver_match else ""
    for place, kinds in leaks.items():
        logger.error("Found where it leaks: %s in %s, view=%s request=%s", kinds, place, view, get_request_id(request))
        try:
            raise_audit_alert(f"leak_{place}", now=clock.now())
        except (AuditUnavailable, KeyMissing):
            logger.exception("The trail was not told of it.")
    if conf.leakage_guard() == "report" or leaks.keys() <= REQUEST_LOCATIONS:
        return response
    if is_navigation(request):
        page = render(request, "django_phi_oidc/leak_blocked.html", {"reference": get_request_id(request)}, status=500)
        return set_private_headers(page)
    return render_problem(500, "This answer was withheld", code=BLOCKED_CODE)
