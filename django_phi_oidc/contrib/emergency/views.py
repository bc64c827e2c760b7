"""The pages on which persons open and close their own emergency access ("break the glass")."""

import uuid
from datetime import timedelta
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.generic import View

from ..._internal import clock
from ...access.enforcement import deny, enforce_assurance, redirect_to_sign_in, render_unavailable
from ...access.no_store import mark_response_private
from ...access.policy import PERMISSION_MISSING, Assurance
from ...access.responses import set_private_headers
from ...audit.request_context import Actor, keep_reference
from ...errors import AuditUnavailable
from . import conf
from .declaration import EmergencyDeclaration
from .emergency_assurance import get_emergency_assurance
from .errors import EmergencyRefused
from .forms import EmergencyForm
from .lifecycle import (
    TOO_MANY_UNREVIEWED,
    close_emergencies,
    open_emergency,
    record_emergency_refusal,
)
from .models import ALL_RESOURCES, CloseReason
from .queries import OPEN_PERMISSION, can_open, can_open_any, has_session, list_open_emergencies


@method_decorator(
    [csrf_protect, sensitive_post_parameters("reason"), sensitive_variables()], name="dispatch"
)
class EmergencyView(View):
    http_method_names = ("get", "post")
    actor: Actor
    declaration: EmergencyDeclaration
    can_open_any: bool

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        declaration = conf.emergency()
        if declaration is None:
            raise Http404
        self.actor = Actor.from_request(request)
        self.declaration = declaration
        if not self.actor.user.is_authenticated or not has_session(self.actor):
            return redirect_to_sign_in(request)
        mark_response_private(request)
        self.can_open_any = can_open_any(self.actor.user)
        try:
            # A person who has lost the permission may still see and close open emergencies.
            can_see = request.method != "POST" and list_open_emergencies(
                self.actor.user, now=clock.now()
            )
            if not (self.can_open_any or can_see):
                keep_reference(
                    request,
                    record_emergency_refusal(self.actor, PERMISSION_MISSING, now=clock.now()),
                )
                return deny(request, permission=OPEN_PERMISSION)
            # A person who may only see and close emergencies needs no stronger sign-in. A local
            # account has none.
            if self.can_open_any:
                assurance = get_emergency_assurance(request.session)
            else:
                assurance = Assurance()

            if not self.actor.is_local and (refusal := enforce_assurance(request, assurance)):
                return refusal
            return super().dispatch(request, *args, **kwargs)
        except AuditUnavailable:
            return render_unavailable(request)

    def get(self, request: HttpRequest) -> HttpResponse:
        form = None
        if self.can_open_any:
            form = self._create_form(initial={"resource": request.GET.get("resource", "")})
        return self._render_page(request, form, status=200)

    def post(self, request: HttpRequest) -> HttpResponse:
        form = self._create_form(request.POST)
        if not form.is_valid():
            return self._render_page(request, form, status=400)
        fields = form.cleaned_data
        try:
            open_emergency(
                self.actor,
                resource=fields["resource"],
                permissions=fields["permissions"],
                purpose=fields["purpose"],
                reason=fields["reason"],
                duration=timedelta(minutes=fields["minutes"]),
                now=clock.now(),
            )
        except EmergencyRefused as refusal:
            text = _("You do not have the permission to open emergency access to this record.")
            if refusal.reason == TOO_MANY_UNREVIEWED:
                text = _(
                    "Too many of your emergency accesses still wait for "
                    "a review. Call the privacy officer."
                )
            form.add_error(None, text)
            return self._render_page(request, form, status=403)
        return set_private_headers(
            HttpResponseRedirect(_get_next_url(request) or reverse("oidc_emergency"))
        )

    def _create_form(self, data: Any = None, **options: Any) -> EmergencyForm:
        labels = self.declaration.permissions
        longest = self.declaration.get_longest(is_local=self.actor.is_local)
        return EmergencyForm(data, permission_labels=labels, max_duration=longest, **options)

    def _render_page(
        self, request: HttpRequest, form: EmergencyForm | None, *, status: int
    ) -> HttpResponse:
        context = {
            "form": form,
            "emergencies": list_open_emergencies(self.actor.user, now=clock.now()),
            "next": _get_next_url(request),
            "may_open_everything": can_open(self.actor.user, ALL_RESOURCES),
        }
        response = set_private_headers(
            render(request, "phi_oidc_emergency/emergency.html", context, status=status)
        )
        # With `no-referrer` the form is sent with the origin "null", which Django refuses.
        response["Referrer-Policy"] = "same-origin"
        return response


@method_decorator(csrf_protect, name="dispatch")
class EmergencyCloseView(View):
    """Close an emergency access of the person; those of others, and ended ones, stay unchanged."""

    http_method_names = ("post",)

    def post(self, request: HttpRequest, emergency: uuid.UUID) -> HttpResponse:
        actor = Actor.from_request(request)
        if not actor.user.is_authenticated:
            return redirect_to_sign_in(request)
        close_emergencies(
            [emergency],
            CloseReason.CLOSED,
            origin=actor.origin,
            now=clock.now(),
            user_id=actor.user.pk,
        )
        return set_private_headers(HttpResponseRedirect(reverse("oidc_emergency")))


def _get_next_url(request: HttpRequest) -> str:
    """Return the page to continue with, if it is on this host, else ""."""
    url = request.POST.get("next", request.GET.get("next", ""))
    hosts = {request.get_host()}
    if url_has_allowed_host_and_scheme(url, hosts, require_https=request.is_secure()):
        return url
    return ""
