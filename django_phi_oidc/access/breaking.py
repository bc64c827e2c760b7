"""The pages of emergency access, "break the glass": one's own open ones, and where they are opened and closed."""

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

from .. import clock, conf
from ..audit.request import Actor
from ..emergency_rules import EmergencyDeclaration
from ..errors import AuditUnavailable, EmergencyRefused
from .admitting import refuse, to_sign_in, unavailable
from .answering import private
from .closing import close
from .emergency import may_open, own_open
from .forms import EmergencyForm
from .models import EVERYTHING, CloseReason
from .opening import open_emergency, tell_refused
from .policy import PERMISSION_MISSING
from .responding import keep_private


@method_decorator([csrf_protect, sensitive_post_parameters("reason"), sensitive_variables()], name="dispatch")
class EmergencyView(View):
    """Opens emergency access for somebody in a provider's session who may; 404 where EMERGENCY is not declared."""

    http_method_names = ("get", "post")
    actor: Actor
    declared: EmergencyDeclaration
    is_let_in: bool

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        declared = conf.emergency()
        if declared is None:
            raise Http404
        self.actor, self.declared = Actor.from_request(request), declared
        if not self.actor.user.is_authenticated or not self.actor.origin.session:
            return to_sign_in(request)
        keep_private(request)
        self.is_let_in = any(may_open(self.actor.user, each) for each in ("one", EVERYTHING))
        try:
            # Whoever has lost the permission may still see, and close, what is open.
            if not self.is_let_in and (request.method == "POST" or not own_open(self.actor.user, now=clock.now())):
                tell_refused(self.actor, PERMISSION_MISSING, now=clock.now())
                return refuse(request)
            return super().dispatch(request, *args, **kwargs)
        except AuditUnavailable:
            return unavailable(request)

    def get(self, request: HttpRequest) -> HttpResponse:
        form = self._form(initial={"resource": request.GET.get("resource", "")}) if self.is_let_in else None
        return self._page(request, form, status=200)

    def post(self, request: HttpRequest) -> HttpResponse:
        form = self._form(request.POST)
        if not form.is_valid():
            return self._page(request, form, status=400)
        given = dict(form.cleaned_data)
        lasts = timedelta(minutes=given.pop("minutes"))
        try:
            open_emergency(self.actor, **given, lasts=lasts, now=clock.now())
        except EmergencyRefused:
            form.add_error(None, _("You may not open this."))
            return self._page(request, form, status=403)
        return private(HttpResponseRedirect(_next(request) or reverse("oidc_emergency")))

    def _form(self, data: Any = None, **given: Any) -> EmergencyForm:
        return EmergencyForm(data, offered=self.declared.permissions, longest=self.declared.longest, **given)

    def _page(self, request: HttpRequest, form: EmergencyForm | None, *, status: int) -> HttpResponse:
        context = {
            "form": form,
            "emergencies": own_open(self.actor.user, now=clock.now()),
            "next": _next(request),
            "may_open_everything": may_open(self.actor.user, EVERYTHING),
        }
        response = private(render(request, "django_phi_oidc/emergency.html", context, status=status))
        # With `no-referrer` the form would come from the origin "null", which Django refuses.
        response["Referrer-Policy"] = "same-origin"
        return response


@method_decorator(csrf_protect, name="dispatch")
class EmergencyCloseView(View):
    """Closes an emergency access of one's own; what is nobody's, or over, is left as it is."""

    http_method_names = ("post",)

    def post(self, request: HttpRequest, emergency: uuid.UUID) -> HttpResponse:
        actor = Actor.from_request(request)
        if not actor.user.is_authenticated:
            return to_sign_in(request)
        close([emergency], CloseReason.CLOSED, origin=actor.origin, now=clock.now(), user=actor.user.pk)
        return private(HttpResponseRedirect(reverse("oidc_emergency")))


def _next(request: HttpRequest) -> str:
    """Return the page to go on to, on this host; empty where there is none."""
    url = request.POST.get("next", request.GET.get("next", ""))
    is_ours = url_has_allowed_host_and_scheme(
        url, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return url if is_ours else ""
