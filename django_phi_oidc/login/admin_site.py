"""Sign-in to the admin through the provider instead of a password, and a logout that reaches the
provider.

ADMIN_ASSURANCE states how strong and how recent that sign-in must be.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.admin import AdminSite, ModelAdmin
from django.contrib.admin.options import TO_FIELD_VAR
from django.contrib.admin.utils import unquote
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import NoReverseMatch, reverse
from django.utils.http import urlencode

from .. import conf
from ..access.enforcement import enforce_assurance
from ..access.policy import PERMISSION_MISSING, Assurance
from ..access.receivers import ROLE_MODELS
from ..audit.admin_base import record_request_event, render_trail_unavailable
from ..audit.events import Action
from ..audit.refusals import RecordedRefusal
from ..audit.request_context import Actor, find_oidc_session_id
from ..errors import AuditUnavailable
from ..sessions.user_logout import OIDCLogoutView, is_logout_routed
from .provider_selection import build_sign_in_url


def use_oidc_login(site: AdminSite) -> None:
    """Replace the site's login and logout pages by those of this app, and require ADMIN_ASSURANCE
    of its other pages.

    It applies wherever the URLs of the site are included; call it before they are.

    A signed-in user who is not a member of staff is refused with an event, because another sign-in
    would lead back here. Django's logout would leave the provider's session, which signs in again
    without a password.
    """
    original_login = site.login
    original_logout = site.logout
    original_admin_view = site.admin_view

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
                event_id = record_request_event(
                    request,
                    Action.ACCESS_DENIED,
                    outcome="failure",
                    reason=PERMISSION_MISSING,
                    detail={"page": "login"},
                )
            except AuditUnavailable:
                return render_trail_unavailable(request, site)
            raise RecordedRefusal(reference=str(event_id))
        # The sign-in validates `next`.
        return HttpResponseRedirect(
            f"{sign_in_url}?{urlencode({'next': request.GET.get('next') or index_url})}"
        )

    site.login = login  # type: ignore[method-assign]  # of this one site

    def logout(request: HttpRequest, extra_context: Any = None) -> HttpResponseBase:
        has_oidc_session = find_oidc_session_id(request.session) is not None
        if not has_oidc_session or not is_logout_routed():
            return original_logout(request, extra_context)
        return OIDCLogoutView.as_view()(request)

    site.logout = logout  # type: ignore[method-assign,assignment]

    def admin_view(view: Callable[..., Any], cacheable: bool = False) -> Any:
        if view in (original_logout, logout):
            return original_admin_view(view, cacheable)

        @wraps(view)
        def assured_view(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            is_asked = conf.admin_assurance().privilege_max_age is not None
            changes_privileges = is_asked and _changes_privileges(
                request, view, kwargs.get("object_id")
            )
            refusal = _enforce_admin_assurance(request, changes_privileges=changes_privileges)
            if refusal is None:
                return view(request, *args, **kwargs)
            return refusal

        return original_admin_view(assured_view, cacheable)

    site.admin_view = admin_view  # type: ignore[method-assign]


def _enforce_admin_assurance(
    request: HttpRequest, *, changes_privileges: bool
) -> HttpResponse | None:
    """Return None if the sign-in is strong and recent enough; otherwise the response in the page's
    place.

    A local account is exempt: no provider could make its sign-in stronger. Each of its sign-ins
    raises an alert, and its session ends after an hour.
    """
    declared = conf.admin_assurance()
    ages = [declared.max_age, declared.privilege_max_age if changes_privileges else None]
    max_age = min((age for age in ages if age is not None), default=None)
    assurance = Assurance(acr=declared.acr, vot=declared.vot, max_age=max_age)
    if assurance == Assurance() or Actor.from_request(request).is_local:
        return None
    return enforce_assurance(request, assurance)


def _changes_privileges(
    request: HttpRequest, view: Callable[..., Any], object_id: str | None
) -> bool:
    """Return whether the user may change accounts, groups or permissions on the page, directly or
    by an inline.

    Lists and histories count only if a form is submitted to them. Pages that the user may only view
    do not count.
    """
    model_admin = getattr(view, "__self__", None)
    if not isinstance(model_admin, ModelAdmin):
        return False
    if request.method in ("GET", "HEAD") and getattr(view, "__name__", "") in (
        "changelist_view",
        "history_view",
    ):
        return False
    if not issubclass(model_admin.model, ROLE_MODELS) and not _has_privilege_inline(
        request, model_admin, object_id
    ):
        return False
    rights = model_admin.get_model_perms(request)
    return rights["add"] or rights["change"] or rights["delete"]


def _has_privilege_inline(
    request: HttpRequest, model_admin: "ModelAdmin[Any]", object_id: str | None
) -> bool:
    rows = [None]
    defaults = ModelAdmin.get_inlines, ModelAdmin.get_inline_instances
    # Overridden methods may depend on the object.
    if (
        object_id is not None
        and (type(model_admin).get_inlines, type(model_admin).get_inline_instances) != defaults
    ):
        to_field = request.POST.get(TO_FIELD_VAR, request.GET.get(TO_FIELD_VAR))
        rows.append(model_admin.get_object(request, unquote(object_id), to_field))
    models = []
    for row in rows:
        for inline in model_admin.get_inlines(request, row):
            models.append(inline.model)
    for row in rows:
        for instance in model_admin.get_inline_instances(request, row):
            models.append(instance.model)
    return any(issubclass(model, ROLE_MODELS) for model in models)
