"""Responses to refused requests: pages for browsers, problem documents for scripts. Spec: RFC
9457.
"""

import re

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch, get_script_prefix, is_valid_path, reverse
from django.utils.translation import get_language

from .policy import Assurance

RETRY_AFTER_SECONDS = 60
"""For responses that an unavailable audit log causes. Spec: RFC 9110 10.2.3."""


def is_navigation(request: HttpRequest) -> bool:
    """Return whether the response will be shown as a page. Spec: Fetch Metadata 2.2."""
    mode = request.headers.get("Sec-Fetch-Mode")
    if mode is not None:
        return mode == "navigate"
    is_script = request.headers.get("X-Requested-With") == "XMLHttpRequest"
    return not is_script and "text/html" in request.headers.get("Accept", "")


def render_problem(
    status: int, title: str, *, code: str, challenge: str = "Session", **members: str
) -> HttpResponse:
    """Return a problem document. challenge: the WWW-Authenticate header of status 401."""
    problem = {"title": title, "status": status, "code": code, **members}
    response = JsonResponse(problem, status=status, content_type="application/problem+json")
    if status == 401:
        response["WWW-Authenticate"] = challenge
    return set_private_headers(response)


def format_step_up_challenge(assurance: Assurance) -> str:
    """Return the WWW-Authenticate header that asks for a stronger or newer sign-in. Spec: RFC 9470
    3.
    """
    return format_bearer_challenge(
        error="insufficient_user_authentication",
        error_description="A stronger or newer authentication is needed",
        acr_values=" ".join(assurance.acr),
        max_age="" if assurance.max_age is None else str(int(assurance.max_age.total_seconds())),
    )


def format_bearer_challenge(**parameters: str) -> str:
    """Return the challenge, without empty parameters. Spec: RFC 6750 3."""
    return format_challenge("Bearer", **parameters)


def format_challenge(scheme: str, **parameters: str) -> str:
    """Return the challenge of a scheme, without empty parameters. Spec: RFC 9110 5.6.4
    (quoted-string), 11.6.1.
    """
    escaped = {}
    for name, value in parameters.items():
        if value:
            escaped[name] = re.sub(r'["\\]', r"\\\g<0>", value)
    return f"{scheme} " + ", ".join(f'{name}="{value}"' for name, value in escaped.items())


def get_sign_in_url() -> str:
    """Return the URL of the sign-in: that of this package, or LOGIN_URL if our URLs are not
    included.
    """
    try:
        return reverse("oidc_authentication_init")
    except NoReverseMatch:
        return resolve_url(settings.LOGIN_URL)


def find_url(name_or_url: str) -> str:
    """Return the URL that a setting such as LOGIN_REDIRECT_URL contains or names; empty if no URL
    has that name.
    """
    try:
        return resolve_url(name_or_url)
    except NoReverseMatch:
        return ""


def find_start_url() -> str:
    """Return the URL of LOGOUT_REDIRECT_URL, or of the project's root if that has a page; otherwise
    an empty text.
    """
    if settings.LOGOUT_REDIRECT_URL:
        return find_url(settings.LOGOUT_REDIRECT_URL)
    if has_page(get_script_prefix()):
        return get_script_prefix()
    return ""


def has_page(path: str) -> bool:
    """Return whether a URL of this project matches the path, directly or with the prefix of the
    language.
    """
    if not path.startswith(get_script_prefix()):
        return False
    path_info = f"/{path.removeprefix(get_script_prefix())}"
    return bool(is_valid_path(path_info) or is_valid_path(f"/{get_language()}{path_info}"))


def set_private_headers(response: HttpResponse) -> HttpResponse:
    """Forbid storing the response, and sending its URL as the Referer. Return the response."""
    response["Cache-Control"] = "no-store"
    response["Referrer-Policy"] = "no-referrer"
    return response
