"""What a browser, or a script in it, is told when the session is over, and of when it will be."""

import math
from functools import lru_cache
from typing import NamedTuple

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch, Resolver404, resolve, reverse
from django.utils.crypto import salted_hmac

from .. import conf
from ..access.responses import get_sign_in_url, is_navigation, render_problem, set_private_headers
from ..audit.request_context import find_oidc_session_id
from .activity import SessionActivity

PASSIVE_HEADER = "HTTP_X_PHI_PASSIVE"
MAX_WARNING_SECONDS = 60.0
"""Seconds before the limit; half of the whole time where that is less."""
_SESSION_TAG_SALT = "django_phi_oidc.session"


class TimeLeft(NamedTuple):
    """What a page knows of the session that it stands in."""

    session: str
    """A mark of it, which tells nothing; another session has another."""
    idle: int
    """Seconds until the idle timeout if nothing follows, rounded up: who asks after them is told that it is over."""
    absolute: int
    """Seconds until the end in any case."""


def get_time_left(request: HttpRequest) -> TimeLeft:
    """Return how much time is left to the person who is signed in. Requires: somebody is."""
    visit: SessionActivity | None = getattr(request, "phi_oidc_timing", None)
    if visit is None:
        # The session began with this request.
        idle, absolute = conf.idle_timeout().total_seconds(), conf.absolute_timeout().total_seconds()
    else:
        idle, absolute = _get_idle_seconds_left(request, visit), visit.absolute_seconds_left
    name = str(find_oidc_session_id(request.session) or request.user.pk)
    mark = salted_hmac(_SESSION_TAG_SALT, name, algorithm="sha256").hexdigest()[:32]
    return TimeLeft(session=mark, idle=math.ceil(idle), absolute=math.ceil(absolute))


def get_warning_seconds() -> int:
    """Return how long before the limit a page warns."""
    whole = min(conf.idle_timeout(), conf.absolute_timeout()).total_seconds()
    return math.ceil(min(MAX_WARNING_SECONDS, whole / 2))


def is_passive_request(request: HttpRequest) -> bool:
    """Say whether a request is no activity of a person, by its header or by its view."""
    match = request.resolver_match
    return request.META.get(PASSIVE_HEADER) == "1" or (
        match is not None and getattr(match.func, "phi_oidc_passive", False)
    )


def render_session_ended_response(request: HttpRequest, reason: str) -> HttpResponse | None:
    """Return the answer to a request whose session is over, or None where the view needs nobody to be signed in.

    A navigation is led to the last page; whatever else asks gets a 401. Spec: RFC 9457.
    """
    try:
        view = resolve(request.path_info, getattr(request, "urlconf", None)).func
    except Resolver404:
        return None
    if not getattr(view, "login_required", True):
        return None
    if is_navigation(request):
        return set_private_headers(HttpResponseRedirect(get_expired_url(request)))
    return render_session_ended_problem(reason)


def render_session_ended_problem(reason: str) -> HttpResponse:
    """Return the answer to a script that asks without a session. Spec: RFC 9457."""
    return render_problem(401, "The session is over.", code=reason, sign_in=get_sign_in_url())


def set_refresh_header(request: HttpRequest, activity: SessionActivity, response: HttpResponseBase) -> None:
    """Let the browser leave a page when its session is over, where the page does not see to that itself."""
    if (
        response.status_code == 200
        and response.get("Content-Type", "").startswith("text/html")
        and not getattr(request, "phi_oidc_watched", False)
    ):
        seconds = math.ceil(min(_get_idle_seconds_left(request, activity), activity.absolute_seconds_left))
        response.headers.setdefault("Refresh", f"{seconds}; url={get_expired_url(request)}")


def _get_idle_seconds_left(request: HttpRequest, activity: SessionActivity) -> float:
    return (
        activity.times.last_seen_timestamp + activity.idle_timeout_seconds - activity.now_timestamp
        if is_passive_request(request)
        else activity.idle_seconds_left
    )


def get_expired_url(request: HttpRequest) -> str:
    """Return where people land whose session is over: our last page, or where the host's sign-in is."""
    # By what the request says of them: Django's own get_urlconf and get_script_prefix look into a thread's locals.
    urlconf = getattr(request, "urlconf", None) or settings.ROOT_URLCONF
    return _resolve_expired_url(urlconf, request.META.get("SCRIPT_NAME", ""), settings.LOGIN_URL)


@lru_cache(maxsize=16)
def _resolve_expired_url(urlconf: str, script_name: str, login_url: str) -> str:
    # Every page of somebody who is signed in bears it, and looking it up takes as long as all else that is done there.
    try:
        return f"{reverse('oidc_logged_out')}?expired=1"
    except NoReverseMatch:
        return resolve_url(login_url)
