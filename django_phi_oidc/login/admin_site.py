"""Sign-in to the admin through the provider instead of a password."""

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
    """Replace the site's login page by the OIDC sign-in, wherever this app's URLs are included.

    A signed-in user who is not a member of staff is refused with an event, because another sign-in would lead back
    here.
    """
    original_login = site.login

    @login_not_required
    def login(request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        index_url = reverse("admin:index", current_app=site.name)
        try:
            sign_in_url = build_sign_in_url(None, next_url="")
        except NoReverseMatch:
            return original_login(request, extra_context)
        if site.has_permission(request):
            return HttpResponseRedirect(index_url)
        if request.user.is_authenticated:
            try:
                fields: Any = {"reason": PERMISSION_MISSING, "detail": {"page": "login"}}
                record_request_event(request, Action.ACCESS_DENIED, outcome="failure", **fields)
            except AuditUnavailable:
                return render_trail_unavailable(request, site)
            raise PermissionDenied
        # The sign-in validates `next`.
        return HttpResponseRedirect(f"{sign_in_url}?{urlencode({'next': request.GET.get('next') or index_url})}")

    site.login = login  # type: ignore[method-assign]  # of this one site
