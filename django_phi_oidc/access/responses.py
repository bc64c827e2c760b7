"""Answers to somebody who is not let in: to a browser one, to a script another. Spec: RFC 9457."""

import re

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch, reverse

from .policy import Assurance

_QUOTED_STRING_SPECIALS, _BACKSLASH_ESCAPE = re.compile(r'["\\]'), r"\\\g<0>"


def is_navigation(request: HttpRequest) -> bool:
    """Say whether somebody will look at the answer as a page. Spec: Fetch Metadata 2.2."""
    mode = request.headers.get("Sec-Fetch-Mode")
    if mode is not None:
        return mode == "navigate"
    is_script = request.headers.get("X-Requested-With") == "XMLHttpRequest"
    return not is_script and "text/html" in request.headers.get("Accept", "")


def render_problem(status: int, title: str, *, code: str, challenge: str = "Session", **members: str) -> HttpResponse:
    """Return a problem for a script; one of status 401 bears the challenge: as a rule, a session is what is missing."""
    told = {"title": title, "status": status, "code": code, **members}
    response = JsonResponse(told, status=status, content_type="application/problem+json")
    if status == 401:
        response["WWW-Authenticate"] = challenge
    return set_private_headers(response)


def format_step_up_challenge(assurance: Assurance) -> str:
    """Return the WWW-Authenticate of an answer to whom an OP must know more surely or more lately. Spec: RFC 9470 3."""
    return format_bearer_challenge(
        error="insufficient_user_authentication",
        error_description="A stronger or newer authentication is needed",
        acr_values=" ".join(assurance.acr),
        max_age="" if assurance.max_age is None else str(int(assurance.max_age.total_seconds())),
    )


def format_bearer_challenge(**parameters: str) -> str:
    """Return the WWW-Authenticate for whoever asks with an access token, or should; an empty parameter is left out.

    Spec: RFC 6750 3; RFC 9110 5.6.4 (quoted-string).
    """
    told = (
        f'{name}="{_QUOTED_STRING_SPECIALS.sub(_BACKSLASH_ESCAPE, value)}"'
        for name, value in parameters.items()
        if value
    )
    return f"Bearer {', '.join(told)}"


def get_sign_in_url() -> str:
    """Return where people sign in."""
    try:
        return reverse("oidc_authentication_init")
    except NoReverseMatch:
        return resolve_url(settings.LOGIN_URL)


def set_private_headers(response: HttpResponse) -> HttpResponse:
    """Return the response, kept by nobody, and its address told to nobody."""
    response["Cache-Control"] = "no-store"
    response["Referrer-Policy"] = "no-referrer"
    return response
