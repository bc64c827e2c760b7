"""What a browser, or a script in it, is told when the session is over, and of when it will be."""

import math

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch, Resolver404, resolve, reverse

from .visiting import Visit


def overdue_response(request: HttpRequest, reason: str) -> HttpResponse | None:
    """Return the answer to a request whose session is over, or None where the view needs nobody to be signed in.

    A navigation is led to the last page; whatever else asks gets a 401. Spec: RFC 9457.
    """
    try:
        view = resolve(request.path_info, getattr(request, "urlconf", None)).func
    except Resolver404:
        return None
    if not getattr(view, "login_required", True):
        return None
    if _is_navigation(request):
        return private(HttpResponseRedirect(expired_url()))
    problem = {"title": "The session is over.", "status": 401, "code": reason, "sign_in": sign_in_url()}
    response = JsonResponse(problem, status=401, content_type="application/problem+json")
    response["WWW-Authenticate"] = "Session"
    return private(response)


def tell_when_to_leave(request: HttpRequest, visit: Visit, response: HttpResponseBase) -> None:
    """Let the browser leave a page when its session is over, where the page does not see to that itself."""
    if (
        response.status_code == 200
        and response.get("Content-Type", "").startswith("text/html")
        and not getattr(request, "phi_oidc_watched", False)
    ):
        seconds = math.ceil(min(visit.idle_seconds, visit.absolute_seconds))
        response.headers.setdefault("Refresh", f"{seconds}; url={expired_url()}")


def expired_url() -> str:
    """Return where people land whose session is over: our last page, or where the host's sign-in is."""
    try:
        return f"{reverse('oidc_logged_out')}?expired=1"
    except NoReverseMatch:
        return resolve_url(settings.LOGIN_URL)


def sign_in_url() -> str:
    """Return where people sign in."""
    try:
        return reverse("oidc_authentication_init")
    except NoReverseMatch:
        return resolve_url(settings.LOGIN_URL)


def _is_navigation(request: HttpRequest) -> bool:
    mode = request.headers.get("Sec-Fetch-Mode")
    if mode is not None:
        return mode == "navigate"
    is_script = request.headers.get("X-Requested-With") == "XMLHttpRequest"
    return not is_script and "text/html" in request.headers.get("Accept", "")


def private(response: HttpResponse) -> HttpResponse:
    """Return the response, kept by nobody, and its address told to nobody."""
    response["Cache-Control"] = "no-store"
    response["Referrer-Policy"] = "no-referrer"
    return response
