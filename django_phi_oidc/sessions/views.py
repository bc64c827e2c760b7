"""The way out that a person takes: first here, then at the OP; and what the pages ask while nobody takes it.

Spec: OIDC RP-Initiated Logout 1.0, R9.
"""

import re
import time

from django.conf import settings
from django.contrib import auth
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.middleware.csrf import get_token
from django.shortcuts import render, resolve_url
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_variables
from django.views.generic import View

from .. import conf
from .._internal import clock, randomness, request_secrets
from .._internal.view_decorators import public_view
from ..access.responses import set_private_headers
from ..audit.request_context import SESSION_KEY, Actor, find_oidc_session_id
from .lifecycle import EndedSession
from .models import EndReason
from .rp_initiated_logout import EndSessionRequest, build_end_session_request, is_valid_logout_state
from .tasks import end_session_and_revoke
from .timeout_responses import PASSIVE_HEADER, get_time_left, render_session_ended_problem

STATE_COOKIE_PREFIXES = ("__Host-phi_oidc_", "phi_oidc_")
"""Of the cookies of sign-ins on their way; 32 hexadecimal digits follow."""
_STATE_COOKIE_NAME = re.compile(f"(?:{'|'.join(STATE_COOKIE_PREFIXES)})[0-9a-f]{{32}}")
LOGOUT_BUDGET_SECONDS = 2.0
"""For the OP, in all: what it does not answer by then, the person does not wait for."""
FORM_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self' 'nonce-{nonce}'; img-src 'self'; "
    "form-action {origin} 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Of the page that leads to the OP. Chromium holds form-action against the redirect that brings people back, too."""


@method_decorator([public_view, csrf_protect, sensitive_variables()], name="dispatch")
class OIDCLogoutView(View):
    """Ends the session of this browser, then sends the browser to the OP that began it, or to our own last page."""

    http_method_names = ("post",)

    def post(self, request: HttpRequest, provider: str = "") -> HttpResponse:
        """provider: of the URL, and without meaning here: the session knows its own."""
        started = time.monotonic()
        ended = _end_session(request)
        left = LOGOUT_BUDGET_SECONDS - (time.monotonic() - started)
        parting = _find_end_session_request(request, ended, timeout_seconds=left) if ended else None
        response = (
            _render_provider_redirect(request, parting) if parting else HttpResponseRedirect(reverse("oidc_logged_out"))
        )
        _delete_cookies(request, response)
        kinds = ["cache", *(["cookies"] if conf.should_clear_all_cookies() else []), "storage"]
        response["Clear-Site-Data"] = ", ".join(f'"{kind}"' for kind in kinds)
        return set_private_headers(response)


@method_decorator(public_view, name="dispatch")
class LoggedOutView(View):
    """Says what is true: signed out here; at the OP too, when it sends our state back; or not at all."""

    http_method_names = ("get", "head")

    def get(self, request: HttpRequest) -> HttpResponse:
        context = {
            "at_provider": is_valid_logout_state(request.GET.get("state", ""), now=clock.now()),
            "expired": request.GET.get("expired") == "1",
            "signed_in": request.user.is_authenticated,
            "home_url": resolve_url(settings.LOGOUT_REDIRECT_URL or "/"),
        }
        response = set_private_headers(render(request, "django_phi_oidc/logged_out.html", context))
        # With `no-referrer` the form of this page would come from the origin "null", which Django refuses.
        response["Referrer-Policy"] = "same-origin"
        return response


@method_decorator([public_view, csrf_protect], name="dispatch")
class SessionTimeLeftView(View):
    """Tells a page how much time its session has: asked by GET, or by POST, which is an activity."""

    http_method_names = ("get", "post")

    def get(self, request: HttpRequest) -> HttpResponse:
        # Whoever asks without the header asks all the same.
        request.META[PASSIVE_HEADER] = "1"
        return self.post(request)

    def post(self, request: HttpRequest) -> HttpResponse:
        if not request.user.is_authenticated:
            return render_session_ended_problem("no_session")
        # A sign-in meanwhile, for more proof, has changed the CSRF token.
        return set_private_headers(JsonResponse({**get_time_left(request)._asdict(), "token": get_token(request)}))


def _end_session(request: HttpRequest) -> EndedSession | None:
    session_id = find_oidc_session_id(request.session)
    ended = None
    if session_id:
        origin = Actor.from_request(request).origin
        ended = end_session_and_revoke(session_id, EndReason.LOGOUT, origin=origin, now=clock.now())
        # It has ended: nobody need look again whether it has.
        del request.session[SESSION_KEY]
        if timing := getattr(request, "phi_oidc_timing", None):
            timing.is_ended = True
    auth.logout(request)
    return ended


def _find_end_session_request(
    request: HttpRequest, ended_session: EndedSession, *, timeout_seconds: float
) -> EndSessionRequest | None:
    return_to = request.build_absolute_uri(reverse("oidc_logged_out"))
    return build_end_session_request(
        ended_session.provider,
        id_token=ended_session.id_token,
        post_logout_redirect_uri=return_to,
        timeout_seconds=timeout_seconds,
        now=clock.now(),
    )


def _render_provider_redirect(request: HttpRequest, end_session_request: EndSessionRequest) -> HttpResponse:
    """Return the redirect to the OP, or the page with a form that leads there."""
    for name, kind in (("state", "state"), ("id_token_hint", "id_token")):
        request_secrets.register_secret(
            end_session_request.parameters.get(name),
            kind,
            location="location" if end_session_request.method == "get" else "body",
        )
    if end_session_request.method == "get":
        return HttpResponseRedirect(end_session_request.url)
    nonce = randomness.token_b64url(16)
    context = {
        "endpoint": end_session_request.endpoint,
        "parameters": end_session_request.parameters,
        "csp_nonce": nonce,
    }
    response = render(request, "django_phi_oidc/end_session.html", context)
    response["Content-Security-Policy"] = FORM_CONTENT_SECURITY_POLICY.format(
        nonce=nonce, origin=end_session_request.endpoint_origin
    )
    return response


def _delete_cookies(request: HttpRequest, response: HttpResponse) -> None:
    response.delete_cookie(
        settings.SESSION_COOKIE_NAME,
        path=settings.SESSION_COOKIE_PATH,
        domain=settings.SESSION_COOKIE_DOMAIN,
        samesite=settings.SESSION_COOKIE_SAMESITE,
    )
    for name in list_state_cookie_names(request):
        response.delete_cookie(name, samesite="Lax")


def list_state_cookie_names(request: HttpRequest) -> list[str]:
    """Return the names of the cookies of sign-ins on their way; a name that only looks like ours can't be written."""
    return [name for name in request.COOKIES if _STATE_COOKIE_NAME.fullmatch(name)]
