"""Sign-in to the admin through the provider instead of a password, and a logout that reaches the provider."""

from typing import Any

from django.contrib.admin import AdminSite
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import NoReverseMatch, reverse
from django.utils.http import urlencode

from ..access.policy import PERMISSION_MISSING
from ..audit.admin import record_request_event, render_trail_unavailable
from ..audit.events import Action
from ..audit.request_context import find_oidc_session_id
from ..errors import AuditUnavailable
from ..sessions.views import OIDCLogoutView, is_logout_routed
from .provider_selection import build_sign_in_url


def use_oidc_login(site: AdminSite) -> None:
    """Replace the site's login and logout pages by those of this app, wherever its URLs are included.

    A signed-in user who is not a member of staff is refused with an event, because another sign-in would lead back
    here. Django's logout would leave the provider's session, which signs in again without a password.
    """
    original_login, original_logout = site.login, site.logout

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

    def logout(request: HttpRequest, extra_context: Any = None) -> HttpResponseBase:
        has_oidc_session = find_oidc_session_id(request.session) is not None
        if not has_oidc_session or not is_logout_routed():
            return original_logout(request, extra_context)
        return OIDCLogoutView.as_view()(request)

    site.logout = logout  # type: ignore[method-assign,assignment]
