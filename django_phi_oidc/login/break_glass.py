"""Password sign-in for the one local account, for when no provider is reachable. Each use raises an alert.

The page exists only if BREAK_GLASS_ACCOUNT names the account. The session lasts an hour and is no OIDC session, so
claims stay encrypted.
"""

from datetime import timedelta
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
from ..audit.events import Action, NewEvent
from ..audit.recorder import record_many
from ..audit.refusals import report_refusal
from ..audit.request_context import Actor
from ..audit.throttling import allow_event, count_refusals, release_event
from ..errors import AuditUnavailable
from ..sessions.activity import ENDS_AT_KEY
from .backend import BreakGlassCredentials
from .failures import TEMPLATES_BY_PAGE
from .provider_selection import parse_next_url

SESSION_LIFETIME = timedelta(hours=1)
REFUSAL_CODE = "break_glass_refused"
MAX_GUESSES_PER_ADDRESS, MAX_GUESSES_TOTAL = 5, 50
"""Wrong passwords per minute. Further ones are not checked."""


class BreakGlassLoginForm(forms.Form):
    username = forms.CharField(max_length=254, widget=forms.TextInput(attrs={"autocomplete": "username"}))
    password = forms.CharField(
        max_length=4096, strip=False, widget=forms.PasswordInput(attrs={"autocomplete": "current-password"})
    )


@method_decorator(
    [public_view, csrf_protect, sensitive_post_parameters("password"), sensitive_variables()], name="dispatch"
)
class BreakGlassLoginView(View):
    """Signs the local account in, after the event that permits it and an alert are committed."""

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
        # Count before checking and undo it on success, so that concurrent requests cannot exceed the limit.
        is_event_allowed = allow_event(REFUSAL_CODE, origin.client_ip, now=now)
        user = None
        if form.is_valid():
            from_address, total = count_refusals(REFUSAL_CODE, origin.client_ip, now=now)
            if from_address <= MAX_GUESSES_PER_ADDRESS and total <= MAX_GUESSES_TOTAL:
                user = auth.authenticate(request, break_glass=BreakGlassCredentials(**form.cleaned_data))
        if user is None:
            # The page is the same whether the name, the password or the limit was the reason.
            refusal: Any = {"is_event_allowed": is_event_allowed, "detail": {"stage": "local"}}
            audit_error = report_refusal(Action.LOGIN_REFUSED, REFUSAL_CODE, origin=origin, now=now, **refusal)[1]
            return _render_page(request, status=503 if audit_error else 403)
        release_event(REFUSAL_CODE, origin.client_ip, was_allowed=is_event_allowed, now=now)
        origin = origin._replace(actor=str(user.pk))
        permit = NewEvent(action=Action.LOGIN_SUCCEEDED, origin=origin, now=now, reason="break_glass")
        alert = NewEvent(action=Action.ALERT_RAISED, origin=origin, now=now, detail={"rule": "break_glass_used"})
        try:
            record_many([permit, alert])
        except AuditUnavailable:
            return set_private_headers(render(request, TEMPLATES_BY_PAGE["unavailable"], status=503))
        # Ends the previous user's session. RevocationMiddleware then queues the revocation of its tokens.
        request.session.flush()
        auth.login(request, user)
        request.session[ENDS_AT_KEY] = int((now + SESSION_LIFETIME).timestamp())
        request.session.set_expiry(int(SESSION_LIFETIME.total_seconds()))
        url = parse_next_url(request) or resolve_url(settings.LOGIN_REDIRECT_URL)
        return set_private_headers(HttpResponseRedirect(url))


def _render_page(request: HttpRequest, *, status: int) -> HttpResponse:
    context = {"form": BreakGlassLoginForm(), "refused": status != 200}
    response = set_private_headers(render(request, "django_phi_oidc/local_login.html", context, status=status))
    # With `no-referrer` the form would be sent with the origin "null", which Django's CSRF check refuses.
    response["Referrer-Policy"] = "same-origin"
    return response
