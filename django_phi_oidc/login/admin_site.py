"""The admin's way in is the provider; it has no password of its own."""

from typing import Any

from django.contrib.admin import AdminSite
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import NoReverseMatch, reverse
from django.utils.http import urlencode

from ..access.policy import PERMISSION_MISSING
from ..audit.admin import record_request_event, render_trail_unavailable
from ..audit.events import Action
from ..errors import AuditUnavailable
from .provider_selection import build_sign_in_url


def use_oidc_login(site: AdminSite) -> None:
    """Let the site's login page be a sign-in at the provider, wherever our URLs are included.

    Somebody who is signed in and is no member of staff is refused, whatever page of the site led here, and that is an
    event: another sign-in would lead here again.
    """
    form = site.login

    @login_not_required
    def login(request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        target = request.GET.get("next") or reverse("admin:index", current_app=site.name)
        try:
            begin = build_sign_in_url(None, next_url="")
        except NoReverseMatch:
            return form(request, extra_context)
        if site.has_permission(request):
            return HttpResponseRedirect(reverse("admin:index", current_app=site.name))
        if request.user.is_authenticated:
            try:
                told: Any = {"reason": PERMISSION_MISSING, "detail": {"page": "login"}}
                record_request_event(request, Action.ACCESS_DENIED, outcome="failure", **told)
            except AuditUnavailable:
                return render_trail_unavailable(request, site)
            raise PermissionDenied
        # Whether the target is on this host, the sign-in judges.
        return HttpResponseRedirect(f"{begin}?{urlencode({'next': target})}")

    site.login = login  # type: ignore[method-assign]  # of this one site
