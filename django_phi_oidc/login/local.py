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

from .. import clock, conf
from ..access.answering import private
from ..audit.events import Act, Action, Origin
from ..audit.recording import record, record_many
from ..audit.request import Actor
from ..audit.throttling import admits, refused_lately, take_back
from ..errors import AuditUnavailable
from ..sessions.views import door
from ..sessions.visiting import UNTIL_KEY
from .backend import PasswordAttempt
from .choosing import read_next

LONGEST = timedelta(hours=1)
REFUSED = "break_glass_refused"
MOST_GUESSES, MOST_GUESSES_IN_ALL = 5, 50
"""Wrong ones in a minute, of one address and of all; after them no password is looked at."""


class LocalForm(forms.Form):
    """Asks for the account and its password."""

    username = forms.CharField(max_length=254, widget=forms.TextInput(attrs={"autocomplete": "username"}))
    password = forms.CharField(
        max_length=4096, strip=False, widget=forms.PasswordInput(attrs={"autocomplete": "current-password"})
    )


@method_decorator([door, csrf_protect, sensitive_post_parameters("password"), sensitive_variables()], name="dispatch")
class LocalLoginView(View):
    """Lets the local account in, after the event that permits it and an alert are committed."""

    http_method_names = ("get", "post")

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if not conf.break_glass_account():
            raise Http404
        return super().dispatch(request, *args, **kwargs)

    def get(self, request: HttpRequest) -> HttpResponse:
        return _page(request, status=200)

    def post(self, request: HttpRequest) -> HttpResponse:
        origin, now = Actor.from_request(request).origin, clock.now()
        form = LocalForm(request.POST)
        # Counted first and taken back: of many that come at once, no more have their password looked at.
        is_told = admits(REFUSED, origin.client_ip, now=now)
        user = None
        if form.is_valid() and not _is_guessing(origin, now=now):
            user = auth.authenticate(request, break_glass=PasswordAttempt(**form.cleaned_data))
        if user is None:
            return _refuse(request, origin, is_told=is_told, now=now)
        take_back(REFUSED, origin.client_ip, admitted=is_told, now=now)
        try:
            _permit(origin._replace(actor=str(user.pk)), now=now)
        except AuditUnavailable:
            return private(render(request, "django_phi_oidc/unavailable.html", status=503))
        # Whoever was signed in here is no longer, and RevocationMiddleware sees to what they held.
        request.session.flush()
        auth.login(request, user)
        request.session[UNTIL_KEY] = int((now + LONGEST).timestamp())
        request.session.set_expiry(int(LONGEST.total_seconds()))
        return private(HttpResponseRedirect(read_next(request) or resolve_url(settings.LOGIN_REDIRECT_URL)))


def _is_guessing(origin: Origin, *, now: datetime) -> bool:
    """Requires: this one is counted already."""
    of_address, in_all = refused_lately(REFUSED, origin.client_ip, now=now)
    return of_address > MOST_GUESSES or in_all > MOST_GUESSES_IN_ALL


def _refuse(request: HttpRequest, origin: Origin, *, is_told: bool, now: datetime) -> HttpResponse:
    """The page is the same whatever was wrong, and whether a password was looked at."""
    if is_told:
        try:
            record(
                Action.LOGIN_REFUSED,
                origin=origin,
                now=now,
                outcome="failure",
                reason=REFUSED,
                detail={"stage": "local"},
            )
        except AuditUnavailable:
            # It stays refused.
            return _page(request, status=503)
    return _page(request, status=403)


def _permit(origin: Origin, *, now: datetime) -> None:
    """Raises: AuditUnavailable: then nobody is let in."""
    record_many(
        [
            Act(action=Action.LOGIN_SUCCEEDED, origin=origin, now=now, reason="break_glass"),
            Act(action=Action.ALERT_RAISED, origin=origin, now=now, detail={"rule": "break_glass_used"}),
        ]
    )


def _page(request: HttpRequest, *, status: int) -> HttpResponse:
    context = {"form": LocalForm(), "refused": status != 200}
    response = private(render(request, "django_phi_oidc/local_login.html", context, status=status))
    # With `no-referrer` the form would come from the origin "null", which Django refuses.
    response["Referrer-Policy"] = "same-origin"
    return response
