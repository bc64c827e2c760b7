"""The door for the one local account, when no provider can be reached: a password, an alert at each use, an hour.

It is not there unless BREAK_GLASS_ACCOUNT names the account. What it opens is no OIDC session: claims stay sealed.
"""

from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import auth
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render, resolve_url
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.generic import View

from .. import conf
from .._internal import clock
from .._internal.view_decorators import public_view
from ..access.responses import set_private_headers
from ..audit.events import Action, NewEvent, Origin
from ..audit.recorder import record, record_many
from ..audit.request_context import Actor
from ..audit.throttling import allow_event, count_refusals, release_event
from ..errors import AuditUnavailable
from ..sessions.activity import ENDS_AT_KEY
from .backend import BreakGlassCredentials
from .provider_selection import parse_next_url

SESSION_LIFETIME = timedelta(hours=1)
REFUSAL_CODE = "break_glass_refused"
MAX_GUESSES_PER_ADDRESS, MAX_GUESSES_TOTAL = 5, 50
"""Wrong ones in a minute, of one address and of all; after them no password is looked at."""


class BreakGlassLoginForm(forms.Form):
    """Asks for the account and its password."""

    username = forms.CharField(max_length=254, widget=forms.TextInput(attrs={"autocomplete": "username"}))
    password = forms.CharField(
        max_length=4096, strip=False, widget=forms.PasswordInput(attrs={"autocomplete": "current-password"})
    )


@method_decorator(
    [public_view, csrf_protect, sensitive_post_parameters("password"), sensitive_variables()], name="dispatch"
)
class BreakGlassLoginView(View):
    """Lets the local account in, after the event that permits it and an alert are committed."""

    http_method_names = ("get", "post")

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if not conf.break_glass_account():
            raise Http404
        return super().dispatch(request, *args, **kwargs)

    def get(self, request: HttpRequest) -> HttpResponse:
        return _render_page(request, status=200)

    def post(self, request: HttpRequest) -> HttpResponse:
        origin, now = Actor.from_request(request).origin, clock.now()
        form = BreakGlassLoginForm(request.POST)
        # Counted first and taken back: of many that come at once, no more have their password looked at.
        is_told = allow_event(REFUSAL_CODE, origin.client_ip, now=now)
        user = None
        if form.is_valid() and not _is_over_guess_limit(origin, now=now):
            user = auth.authenticate(request, break_glass=BreakGlassCredentials(**form.cleaned_data))
        if user is None:
            return _deny_sign_in(request, origin, is_event_allowed=is_told, now=now)
        release_event(REFUSAL_CODE, origin.client_ip, was_allowed=is_told, now=now)
        try:
            _record_login_succeeded(origin._replace(actor=str(user.pk)), now=now)
        except AuditUnavailable:
            return set_private_headers(render(request, "django_phi_oidc/unavailable.html", status=503))
        # Whoever was signed in here is no longer, and RevocationMiddleware sees to what they held.
        request.session.flush()
        auth.login(request, user)
        request.session[ENDS_AT_KEY] = int((now + SESSION_LIFETIME).timestamp())
        request.session.set_expiry(int(SESSION_LIFETIME.total_seconds()))
        return set_private_headers(
            HttpResponseRedirect(parse_next_url(request) or resolve_url(settings.LOGIN_REDIRECT_URL))
        )


def _is_over_guess_limit(origin: Origin, *, now: datetime) -> bool:
    """Requires: this one is counted already."""
    of_address, in_all = count_refusals(REFUSAL_CODE, origin.client_ip, now=now)
    return of_address > MAX_GUESSES_PER_ADDRESS or in_all > MAX_GUESSES_TOTAL


def _deny_sign_in(request: HttpRequest, origin: Origin, *, is_event_allowed: bool, now: datetime) -> HttpResponse:
    """The page is the same whatever was wrong, and whether a password was looked at."""
    if is_event_allowed:
        try:
            record(
                Action.LOGIN_REFUSED,
                origin=origin,
                now=now,
                outcome="failure",
                reason=REFUSAL_CODE,
                detail={"stage": "local"},
            )
        except AuditUnavailable:
            # It stays refused.
            return _render_page(request, status=503)
    return _render_page(request, status=403)


def _record_login_succeeded(origin: Origin, *, now: datetime) -> None:
    """Raises: AuditUnavailable: then nobody is let in."""
    record_many(
        [
            NewEvent(action=Action.LOGIN_SUCCEEDED, origin=origin, now=now, reason="break_glass"),
            NewEvent(action=Action.ALERT_RAISED, origin=origin, now=now, detail={"rule": "break_glass_used"}),
        ]
    )


def _render_page(request: HttpRequest, *, status: int) -> HttpResponse:
    context = {"form": BreakGlassLoginForm(), "refused": status != 200}
    response = set_private_headers(render(request, "django_phi_oidc/local_login.html", context, status=status))
    # With `no-referrer` the form would come from the origin "null", which Django refuses.
    response["Referrer-Policy"] = "same-origin"
    return response
