"""The way out that a person takes: first here, then at the OP. Spec: OIDC RP-Initiated Logout 1.0, R9."""

import re
import time
from typing import Any

from django.conf import settings
from django.contrib import auth
from django.contrib.auth.decorators import login_not_required
from django.core import signing
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render, resolve_url
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_variables
from django.views.generic import View

from .. import clock, entropy
from ..audit.request import Actor, session_id_of
from ..claims.catalog import PROTOCOL_CLAIMS
from ..errors import MetadataError, ProviderUnknown, TransportError
from ..oidc.logout import build_end_session_url, may_be_hint
from ..provider.registry import get_provider
from .ending import Ended, end_session
from .models import EndReason
from .tasks import revoke_soon

PENDING_PREFIXES = ("__Host-phi_oidc_", "phi_oidc_")
"""Of the cookies of sign-ins on their way; 32 hexadecimal digits follow."""
_PENDING = re.compile(f"(?:{'|'.join(PENDING_PREFIXES)})[0-9a-f]{{32}}")
STATE_SECONDS = 600
LONGEST_URL = 8192
"""Characters of a redirect to the OP; beyond it the person stays here."""
LOGOUT_SECONDS = 2.0
"""For the OP, in all: what it does not answer by then, the person does not wait for."""
_LEAST_SECONDS = 0.1
_STATE_SALT = "django_phi_oidc.sessions.logout"


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
        url = _end_session_url(request, ended, seconds=left) if ended else ""
        response = HttpResponseRedirect(url or reverse("oidc_logged_out"))
        _delete_cookies(request, response)
        response["Clear-Site-Data"] = '"cache", "storage"'
        return private(response)


@method_decorator(door, name="dispatch")
class LoggedOutView(View):
    """Says what is true: signed out here; at the OP too, when it sends our state back; or not at all."""

    http_method_names = ("get", "head")

    def get(self, request: HttpRequest) -> HttpResponse:
        context = {
            "at_provider": _is_our_state(request.GET.get("state", "")),
            "signed_in": request.user.is_authenticated,
            "home_url": resolve_url(settings.LOGOUT_REDIRECT_URL or "/"),
        }
        return private(render(request, "django_phi_oidc/logged_out.html", context))


def _end(request: HttpRequest) -> Ended | None:
    session_id = session_id_of(request.session)
    ended = None
    if session_id:
        origin = Actor.from_request(request).origin
        ended = end_session(session_id, EndReason.LOGOUT, origin=origin, now=clock.now())
    try:
        auth.logout(request)
    finally:
        # A receiver of the host's that fails must not keep the tokens alive until the sweep.
        revoke_soon(ended.revocations if ended else ())
    return ended


def _end_session_url(request: HttpRequest, ended: Ended, *, seconds: float) -> str:
    """Return where the OP ends its own session; empty when it has no such place or can't be asked in time."""
    try:
        provider = get_provider(ended.provider)
        metadata = provider.metadata(deadline=max(seconds, _LEAST_SECONDS))
    except (ProviderUnknown, TransportError, MetadataError):
        return ""
    url = build_end_session_url(
        metadata=metadata,
        client_id=provider.declaration.client_id,
        post_logout_redirect_uri=request.build_absolute_uri(reverse("oidc_logged_out")),
        state=_make_state(),
        id_token_hint=ended.id_token if may_be_hint(ended.id_token, protocol_claims=PROTOCOL_CLAIMS) else "",
    )
    return url if len(url) <= LONGEST_URL else ""


def _make_state() -> str:
    """Return a random value with its time and a MAC: it needs no storage to be known again."""
    return signing.Signer(salt=_STATE_SALT).sign(f"{entropy.token_b64url(16)}.{int(clock.now().timestamp())}")


def _is_our_state(state: str) -> bool:
    try:
        made_at = int(signing.Signer(salt=_STATE_SALT).unsign(state).rpartition(".")[2])
    except signing.BadSignature:
        return False
    return abs(clock.now().timestamp() - made_at) <= STATE_SECONDS


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


def private(response: HttpResponse) -> HttpResponse:
    response["Cache-Control"] = "no-store"
    response["Referrer-Policy"] = "no-referrer"
    return response
