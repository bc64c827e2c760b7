"""Responses that state when a session ends, and responses of a session that has ended."""

import math
from functools import lru_cache
from typing import NamedTuple

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.http.response import HttpResponseBase
from django.middleware.csrf import get_token
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch, Resolver404, resolve, reverse
from django.utils.crypto import salted_hmac
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_protect
from django.views.generic import View

from .. import conf
from .._internal.view_decorators import public_view
from ..access.responses import get_sign_in_url, is_navigation, render_problem, set_private_headers
from ..audit.request_context import find_oidc_session_id
from .activity import SessionActivity

PASSIVE_HEADER = "HTTP_X_PHI_PASSIVE"
MAX_WARNING_SECONDS = 60.0
"""At most half of the timeout."""
_SESSION_TAG_SALT = "django_phi_oidc.session"


class TimeLeft(NamedTuple):
    """The time that a page's session has left."""

    session: str
    """An opaque mark of the session; every session has another one."""
    idle: int
    """Seconds until the idle timeout, rounded up, so that a request at that time finds the session
    ended.
    """
    absolute: int
    """Seconds until the session ends in any case."""


def get_time_left(request: HttpRequest) -> TimeLeft:
    """Return the time left. Requires: a user is signed in."""
    activity: SessionActivity | None = getattr(request, "phi_oidc_timing", None)
    if activity is None:
        # The session started in this request.
        idle = conf.idle_timeout().total_seconds()
        absolute = conf.absolute_timeout().total_seconds()
    else:
        idle = _get_idle_seconds_left(request, activity)
        absolute = activity.absolute_seconds_left
    identifier = str(find_oidc_session_id(request.session) or request.user.pk)
    mark = salted_hmac(_SESSION_TAG_SALT, identifier, algorithm="sha256").hexdigest()[:32]
    return TimeLeft(session=mark, idle=math.ceil(idle), absolute=math.ceil(absolute))


def get_warning_seconds() -> int:
    """Return how long before a timeout a page shows the warning."""
    timeout_seconds = min(conf.idle_timeout(), conf.absolute_timeout()).total_seconds()
    return math.ceil(min(MAX_WARNING_SECONDS, timeout_seconds / 2))


def is_passive_request(request: HttpRequest) -> bool:
    """Say whether a request is no user activity, by its header or its view."""
    match = request.resolver_match
    is_passive_view = match is not None and getattr(match.func, "phi_oidc_passive", False)
    return is_passive_view or request.META.get(PASSIVE_HEADER) == "1"


def render_session_ended_response(request: HttpRequest, reason: str) -> HttpResponse | None:
    """Return the response to a request whose session has ended; None for a view that needs no
    login. Spec: RFC 9457.
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
    """Return the response to a script without a session. Spec: RFC 9457."""
    return render_problem(401, "The session is over.", code=reason, sign_in=get_sign_in_url())


@method_decorator([public_view, csrf_protect], name="dispatch")
class SessionTimeLeftView(View):
    """Return the time left to a page's script: GET is passive, and POST counts as user activity."""

    http_method_names = ("get", "post")

    def get(self, request: HttpRequest) -> HttpResponse:
        # A GET is passive even without the header.
        request.META[PASSIVE_HEADER] = "1"
        return self.post(request)

    def post(self, request: HttpRequest) -> HttpResponse:
        if not request.user.is_authenticated:
            return render_session_ended_problem("no_session")
        # A step-up sign-in in the meantime has changed the CSRF token.
        return set_private_headers(
            JsonResponse({**get_time_left(request)._asdict(), "token": get_token(request)})
        )


def set_refresh_header(
    request: HttpRequest, activity: SessionActivity, response: HttpResponseBase
) -> None:
    """Make the browser leave the page when the session ends, unless the page does so itself."""
    if (
        response.status_code == 200
        and response.get("Content-Type", "").startswith("text/html")
        and not getattr(request, "phi_oidc_watched", False)
    ):
        seconds = math.ceil(
            min(_get_idle_seconds_left(request, activity), activity.absolute_seconds_left)
        )
        response.headers.setdefault("Refresh", f"{seconds}; url={get_expired_url(request)}")


def _get_idle_seconds_left(request: HttpRequest, activity: SessionActivity) -> float:
    if is_passive_request(request):
        return (
            activity.times.last_seen_timestamp
            + activity.idle_timeout_seconds
            - activity.now_timestamp
        )
    return activity.idle_seconds_left


def get_expired_url(request: HttpRequest) -> str:
    """Return the URL of the signed-out page, or of the host project's sign-in."""
    # From the request, because Django's get_urlconf and get_script_prefix read thread-local data.
    urlconf = getattr(request, "urlconf", None) or settings.ROOT_URLCONF
    return _resolve_expired_url(urlconf, request.META.get("SCRIPT_NAME", ""), settings.LOGIN_URL)


@lru_cache(maxsize=16)
def _resolve_expired_url(urlconf: str, script_name: str, login_url: str) -> str:
    # Cached: each page of a signed-in user needs it, and reverse() takes as long as the rest of the
    # middleware.
    try:
        return f"{reverse('oidc_logged_out')}?expired=1"
    except NoReverseMatch:
        return resolve_url(login_url)
