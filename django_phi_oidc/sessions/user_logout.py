"""Logout by the user, here and at the provider.

Spec: OIDC RP-Initiated Logout 1.0, R9.
"""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import NoReverseMatch, reverse
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_variables
from django.views.generic import View

from .. import conf
from .._internal import clock, randomness, request_secrets
from .._internal.view_decorators import public_view
from ..access.responses import find_start_url, set_private_headers
from .models import EndReason
from .request_logout import log_out
from .rp_initiated_logout import EndSessionRequest, build_end_session_request, is_valid_logout_state
from .tasks import INLINE_SECONDS
from .token_revocation import has_provider_failed

STATE_COOKIE_PREFIXES = ("__Host-phi_oidc_", "phi_oidc_")
"""Of the state cookies of unfinished sign-ins; 32 hexadecimal digits follow."""
_STATE_COOKIE_NAME = re.compile(f"(?:{'|'.join(STATE_COOKIE_PREFIXES)})[0-9a-f]{{32}}")
LOGOUT_SECONDS = 4.0
"""For all calls to the provider together, of one logout at a time in this process. The others have
`INLINE_SECONDS`, so that a slow provider does not take the threads of the portal along.
"""
_long_logout = threading.Lock()
"""Held by the logout that has LOGOUT_SECONDS."""
FORM_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self' 'nonce-{nonce}'; img-src "
    "'self'; "
    "form-action {origin} 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Of the page that posts to the provider. Chromium also checks form-action against the redirect
back.
"""


@method_decorator([public_view, csrf_protect, sensitive_variables()], name="dispatch")
class OIDCLogoutView(View):
    """End the session of this browser, then send it to the provider's logout or to the signed-out
    page.

    A page with a button replaces the redirect where the provider might end the logout on an error
    page.
    """

    http_method_names = ("post",)

    def post(self, request: HttpRequest, provider: str = "") -> HttpResponse:
        """provider: in the URL, but ignored, because the session knows its provider."""
        with _choose_time_limit() as limit_seconds:
            started = time.monotonic()
            ended = log_out(request, EndReason.LOGOUT, budget_seconds=limit_seconds)
            seconds_left = limit_seconds - (time.monotonic() - started)
        logged_out_url = reverse("oidc_logged_out")

        end_request = None
        if ended:
            end_request = build_end_session_request(
                ended.provider,
                id_token=ended.id_token,
                id_token_claims=ended.id_token_claims,
                post_logout_redirect_uri=request.build_absolute_uri(logged_out_url),
                timeout_seconds=seconds_left,
                now=clock.now(),
            )

        response: HttpResponse = HttpResponseRedirect(logged_out_url)
        if end_request:
            is_unavailable = ended is not None and has_provider_failed(ended.leased_revocations)
            response = _render_provider_redirect(
                request, end_request, is_unavailable=is_unavailable
            )
        response.delete_cookie(
            settings.SESSION_COOKIE_NAME,
            path=settings.SESSION_COOKIE_PATH,
            domain=settings.SESSION_COOKIE_DOMAIN,
            samesite=settings.SESSION_COOKIE_SAMESITE,
        )
        for name in list_state_cookie_names(request):
            response.delete_cookie(name, samesite="Lax")

        kinds = ["cache"]
        if conf.should_clear_all_cookies():
            kinds.append("cookies")
        kinds.append("storage")
        response["Clear-Site-Data"] = ", ".join(f'"{kind}"' for kind in kinds)
        return set_private_headers(response)


@method_decorator(public_view, name="dispatch")
class LoggedOutView(View):
    """State whether the user is signed out here, at the provider too (it returned our `state`), or
    not at all.
    """

    http_method_names = ("get", "head")

    def get(self, request: HttpRequest) -> HttpResponse:
        context = {
            "at_provider": is_valid_logout_state(request.GET.get("state", ""), now=clock.now()),
            "expired": request.GET.get("expired") == "1",
            "signed_in": request.user.is_authenticated,
            "home_url": find_start_url(),
        }
        response = set_private_headers(render(request, "django_phi_oidc/logged_out.html", context))
        # With `no-referrer`, browsers would send this page's form with the origin "null", which
        # Django refuses.
        response["Referrer-Policy"] = "same-origin"
        return response


@contextmanager
def _choose_time_limit() -> Iterator[float]:
    """Yield the seconds that the calls of the logout in this block may take in all."""
    is_first = _long_logout.acquire(blocking=False)
    try:
        if is_first:
            yield LOGOUT_SECONDS
        else:
            yield INLINE_SECONDS
    finally:
        if is_first:
            _long_logout.release()


def _render_provider_redirect(
    request: HttpRequest, end_session_request: EndSessionRequest, *, is_unavailable: bool
) -> HttpResponse:
    """Return the redirect to the provider, the page that posts a form to it, or the page with a
    button.

    is_unavailable: the provider has just failed to answer, so the browser would not reach it
    either.
    """
    is_get = end_session_request.method == "get"
    parameters = end_session_request.parameters
    needs_click = end_session_request.needs_click or is_unavailable
    in_header = is_get and not needs_click

    location: request_secrets.SecretLocation
    if in_header:
        location = "location"
    else:
        location = "body"
    for name, kind in (("state", "state"), ("id_token_hint", "id_token")):
        request_secrets.register_secret(parameters.get(name), kind, location=location)

    if in_header:
        return HttpResponseRedirect(end_session_request.url)

    # A form would replace the query of the endpoint, so with GET the page has a link.
    link_url = ""
    if is_get:
        link_url = end_session_request.url

    nonce = randomness.token_b64url(16)
    origin = end_session_request.endpoint_origin
    context = {
        "url": link_url,
        "endpoint": end_session_request.endpoint,
        "parameters": parameters,
        "needs_click": needs_click,
        "is_unavailable": is_unavailable,
        "home_url": find_start_url(),
        "csp_nonce": nonce,
    }
    response = render(request, "django_phi_oidc/end_session.html", context)
    response["Content-Security-Policy"] = FORM_CONTENT_SECURITY_POLICY.format(
        nonce=nonce, origin=origin
    )
    return response


def is_logout_routed() -> bool:
    """Return whether the project includes the URLs of this app."""
    try:
        reverse("oidc_logged_out")
    except NoReverseMatch:
        return False
    return True


def list_state_cookie_names(request: HttpRequest) -> list[str]:
    """Return the state cookies of unfinished sign-ins. Other names may be invalid in a response
    header.
    """
    cookie_names = []
    for name in request.COOKIES:
        if _STATE_COOKIE_NAME.fullmatch(name):
            cookie_names.append(name)
    return cookie_names
