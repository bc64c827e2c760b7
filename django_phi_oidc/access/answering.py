"""Answers to somebody who is not let in: to a browser one, to a script another. Spec: RFC 9457."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch, reverse


def is_navigation(request: HttpRequest) -> bool:
    """Say whether somebody will look at the answer as a page. Spec: Fetch Metadata 2.2."""
    mode = request.headers.get("Sec-Fetch-Mode")
    if mode is not None:
        return mode == "navigate"
    is_script = request.headers.get("X-Requested-With") == "XMLHttpRequest"
    return not is_script and "text/html" in request.headers.get("Accept", "")


def problem(status: int, title: str, *, code: str, **members: str) -> HttpResponse:
    """Return a problem for a script; one of status 401 says that a session is what is missing."""
    told = {"title": title, "status": status, "code": code, **members}
    response = JsonResponse(told, status=status, content_type="application/problem+json")
    if status == 401:
        response["WWW-Authenticate"] = "Session"
    return private(response)


def sign_in_url() -> str:
    """Return where people sign in."""
    try:
        return reverse("oidc_authentication_init")
    except NoReverseMatch:
        return resolve_url(settings.LOGIN_URL)


def private(response: HttpResponse) -> HttpResponse:
    """Return the response, kept by nobody, and its address told to nobody."""
    response["Cache-Control"] = "no-store"
    response["Referrer-Policy"] = "no-referrer"
    return response
