"""The way out that a person takes: first here, then at the OP; and what the pages ask while nobody takes it.

Spec: OIDC RP-Initiated Logout 1.0, R9.
"""

import re
import time
from typing import Any

from django.conf import settings
from django.contrib import auth
from django.contrib.auth.decorators import login_not_required
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.middleware.csrf import get_token
from django.shortcuts import render, resolve_url
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_variables
from django.views.generic import View

from .. import clock, conf, entropy, secrecy
from ..access.answering import private
from ..audit.request import SESSION_KEY, Actor, session_id_of
from .ending import Ended
from .models import EndReason
from .parting import Parting, is_our_state, part
from .refusing import PASSIVE_HEADER, problem_response, time_left
from .tasks import end_at_once

PENDING_PREFIXES = ("__Host-phi_oidc_", "phi_oidc_")
"""Of the cookies of sign-ins on their way; 32 hexadecimal digits follow."""
_PENDING = re.compile(f"(?:{'|'.join(PENDING_PREFIXES)})[0-9a-f]{{32}}")
LOGOUT_SECONDS = 2.0
"""For the OP, in all: what it does not answer by then, the person does not wait for."""
FORM_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self' 'nonce-{nonce}'; img-src 'self'; "
    "form-action {origin} 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Of the page that leads to the OP. Chromium holds form-action against the redirect that brings people back, too."""


def door(view: Any) -> Any:
    """Open a view to people who are not signed in, and keep ATOMIC_REQUESTS of every database away from it."""
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return login_not_required(view)


@method_decorator([door, csrf_protect, sensitive_variables()], name="dispatch")
class OIDCLogoutView(View):
    """Ends the session of this browser, then sends the browser to the OP that began it, or to our own last page."""

    http_method_names = ("post",)

    def post(self, request: HttpRequest, provider: str = "") -> HttpResponse:
        """provider: of the URL, and without meaning here: the session knows its own."""
        started = time.monotonic()
        ended = _end(request)
        left = LOGOUT_SECONDS - (time.monotonic() - started)
        parting = _parting(request, ended, seconds=left) if ended else None
        response = _leave(request, parting) if parting else HttpResponseRedirect(reverse("oidc_logged_out"))
        _delete_cookies(request, response)
        kinds = ["cache", *(["cookies"] if conf.clear_all_cookies() else []), "storage"]
        response["Clear-Site-Data"] = ", ".join(f'"{kind}"' for kind in kinds)
        return private(response)


@method_decorator(door, name="dispatch")
class LoggedOutView(View):
    """Says what is true: signed out here; at the OP too, when it sends our state back; or not at all."""

    http_method_names = ("get", "head")

    def get(self, request: HttpRequest) -> HttpResponse:
        context = {
            "at_provider": is_our_state(request.GET.get("state", ""), now=clock.now()),
            "expired": request.GET.get("expired") == "1",
            "signed_in": request.user.is_authenticated,
            "home_url": resolve_url(settings.LOGOUT_REDIRECT_URL or "/"),
        }
        response = private(render(request, "django_phi_oidc/logged_out.html", context))
        # With `no-referrer` the form of this page would come from the origin "null", which Django refuses.
        response["Referrer-Policy"] = "same-origin"
        return response


@method_decorator([door, csrf_protect], name="dispatch")
class SessionView(View):
    """Tells a page how much time its session has: asked by GET, or by POST, which is an activity."""

    http_method_names = ("get", "post")

    def get(self, request: HttpRequest) -> HttpResponse:
        # Whoever asks without the header asks all the same.
        request.META[PASSIVE_HEADER] = "1"
        return self.post(request)

    def post(self, request: HttpRequest) -> HttpResponse:
        if not request.user.is_authenticated:
            return problem_response("no_session")
        # A sign-in meanwhile, for more proof, has changed the CSRF token.
        return private(JsonResponse({**time_left(request)._asdict(), "token": get_token(request)}))


def _end(request: HttpRequest) -> Ended | None:
    session_id = session_id_of(request.session)
    ended = None
    if session_id:
        origin = Actor.from_request(request).origin
        ended = end_at_once(session_id, EndReason.LOGOUT, origin=origin, now=clock.now())
        # It has ended: nobody need look again whether it has.
        del request.session[SESSION_KEY]
        if timing := getattr(request, "phi_oidc_timing", None):
            timing.is_over = True
    auth.logout(request)
    return ended


def _parting(request: HttpRequest, ended: Ended, *, seconds: float) -> Parting | None:
    return_to = request.build_absolute_uri(reverse("oidc_logged_out"))
    return part(ended.provider, id_token=ended.id_token, return_to=return_to, seconds=seconds, now=clock.now())


def _leave(request: HttpRequest, parting: Parting) -> HttpResponse:
    """Return the redirect to the OP, or the page with a form that leads there."""
    for name, kind in (("state", "state"), ("id_token_hint", "id_token")):
        secrecy.learn(parting.parameters.get(name), kind, place="location" if parting.method == "get" else "body")
    if parting.method == "get":
        return HttpResponseRedirect(parting.url)
    nonce = entropy.token_b64url(16)
    context = {"endpoint": parting.endpoint, "parameters": parting.parameters, "csp_nonce": nonce}
    response = render(request, "django_phi_oidc/end_session.html", context)
    response["Content-Security-Policy"] = FORM_POLICY.format(nonce=nonce, origin=parting.origin)
    return response


def _delete_cookies(request: HttpRequest, response: HttpResponse) -> None:
    response.delete_cookie(
        settings.SESSION_COOKIE_NAME,
        path=settings.SESSION_COOKIE_PATH,
        domain=settings.SESSION_COOKIE_DOMAIN,
        samesite=settings.SESSION_COOKIE_SAMESITE,
    )
    for name in pending_cookies(request):
        response.delete_cookie(name, samesite="Lax")


def pending_cookies(request: HttpRequest) -> list[str]:
    """Return the names of the cookies of sign-ins on their way; a name that only looks like ours can't be written."""
    return [name for name in request.COOKIES if _PENDING.fullmatch(name)]
