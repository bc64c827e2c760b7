"""Password sign-in for the local accounts, for when no provider is reachable. Each use raises an
alert.

The page exists only if BREAK_GLASS_ACCOUNTS lists an account. The session lasts an hour and is no
OIDC session: claims stay encrypted, and guarded views need an open emergency.
"""

from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.contrib import auth
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.generic import View

from ..._internal import clock
from ..._internal.view_decorators import public_view
from ...access.responses import set_private_headers
from ...audit.events import Action, NewEvent
from ...audit.recorder import record_many
from ...audit.refusals import report_refusal
from ...audit.request_context import LOCAL_SIGN_IN_KEY, Actor
from ...errors import AuditUnavailable
from ...login.failures import TEMPLATES_BY_PAGE
from ...login.provider_selection import parse_next_url
from ...login.redirect_url import get_landing_url
from ...sessions.activity import ENDS_AT_KEY
from ...subjects.account_changes import AccountChange, report_suspicion
from . import conf
from .backends import BreakGlassCredentials, find_local_account
from .guess_limits import end_guess, start_guess
from .known_senders import find_known_sender, remember_browser, remember_network

SESSION_LIFETIME = timedelta(hours=1)
REFUSAL_CODE = "break_glass_refused"


class BreakGlassLoginForm(forms.Form):
    username = forms.CharField(
        max_length=254, widget=forms.TextInput(attrs={"autocomplete": "username"})
    )
    password = forms.CharField(
        max_length=4096,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )


@method_decorator(
    [public_view, csrf_protect, sensitive_post_parameters("password"), sensitive_variables()],
    name="dispatch",
)
class BreakGlassLoginView(View):
    """Signs a local account in, after the event that permits it and an alert are committed."""

    http_method_names = ("get", "post")

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if not conf.break_glass_accounts():
            raise Http404
        return super().dispatch(request, *args, **kwargs)

    def get(self, request: HttpRequest) -> HttpResponse:
        return _render_page(request, status=200)

    def post(self, request: HttpRequest) -> HttpResponse:
        origin = Actor.from_request(request).origin
        now = clock.now()
        form = BreakGlassLoginForm(request.POST)
        user = None
        is_checked = False
        if form.is_valid():
            credentials = BreakGlassCredentials(**form.cleaned_data)
            user, is_checked = _check_password(
                request, credentials, client_ip=origin.client_ip, now=now
            )

        if user is None:
            # The page is the same whether the name, the password or the limit was the reason.
            guessed = None
            if is_checked:
                guessed = find_local_account(form.cleaned_data["username"])

            # The account as a resource, so that guesses at one account can be found.
            if guessed is None:
                resource = ""
            else:
                resource = f"user/{guessed.pk}"

            detail = {"stage": "local"}
            refusal = report_refusal(
                Action.LOGIN_REFUSED,
                REFUSAL_CODE,
                origin=origin,
                now=now,
                detail=detail,
                resource=resource,
            )
            if guessed is not None:
                report_suspicion(guessed, AccountChange.PASSWORD_REFUSED, provider="", now=now)
            return _render_page(request, status=503 if refusal.audit_error else 403)
        origin = origin._replace(actor=str(user.pk))
        permit = NewEvent(
            action=Action.LOGIN_SUCCEEDED, origin=origin, now=now, reason="break_glass"
        )
        alert = NewEvent(
            action=Action.ALERT_RAISED, origin=origin, now=now, detail={"rule": "break_glass_used"}
        )
        try:
            record_many([permit, alert])
        except AuditUnavailable:
            return set_private_headers(
                render(request, TEMPLATES_BY_PAGE["unavailable"], status=503)
            )
        # Ends the previous user's session. RevocationMiddleware then queues the revocation of its
        # tokens.
        request.session.flush()
        auth.login(request, user)
        # Another sign-in of the user in this Django session changes the backend, so this entry then
        # permits nothing.
        request.session[LOCAL_SIGN_IN_KEY] = request.session[auth.BACKEND_SESSION_KEY]
        request.session[ENDS_AT_KEY] = int((now + SESSION_LIFETIME).timestamp())
        request.session.set_expiry(int(SESSION_LIFETIME.total_seconds()))
        url = parse_next_url(request) or get_landing_url()
        response = HttpResponseRedirect(url)
        remember_browser(response, request, now=now)
        remember_network(user, client_ip=origin.client_ip, now=now)
        return set_private_headers(response)


@sensitive_variables()
def _check_password(
    request: HttpRequest, credentials: BreakGlassCredentials, *, client_ip: str, now: datetime
) -> tuple[Any, bool]:
    """Return the user, or None, and whether the password was checked: not beyond a limit."""
    known_sender = find_known_sender(
        request, username=credentials.username, client_ip=client_ip, now=now
    )
    counter_keys = start_guess(known_sender, client_ip=client_ip, now=now)
    if not counter_keys:
        return None, False
    user = None
    try:
        user = auth.authenticate(request, break_glass=credentials)
    finally:
        end_guess(counter_keys, is_correct=user is not None, now=now)
    return user, True


def _render_page(request: HttpRequest, *, status: int) -> HttpResponse:
    context = {"form": BreakGlassLoginForm(), "refused": status != 200}
    response = set_private_headers(
        render(request, "phi_oidc_local_accounts/local_login.html", context, status=status)
    )
    # With `no-referrer` the form would be sent with the origin "null", which Django's CSRF check
    # refuses.
    response["Referrer-Policy"] = "same-origin"
    return response
