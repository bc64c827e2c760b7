"""Pages for refused requests: who the user is, what is missing, a reference for the help desk, and
how to leave.

A project with its own `handler403` or `403.html` keeps it for its own pages. The pages of this app
in the admin have their own page always, in the layout of the admin.

A database that refuses a connection, or closes it, is no fault of the request, which can be
repeated: the URLs of this app answer with status 503. Other URLs keep the error page of the
project.
"""

import logging
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import Group, Permission
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.template import TemplateDoesNotExist
from django.template.loader import get_template, render_to_string
from django.urls import NoReverseMatch, Resolver404, get_resolver, resolve, reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.views.defaults import permission_denied

from ..access.policy import SESSION_MISSING
from ..access.responses import find_start_url, is_navigation, render_problem, set_private_headers
from ..access.step_up import get_return_path
from ..audit.refusals import RecordedRefusal
from ..subjects.person_label import get_label

if TYPE_CHECKING:
    from django.contrib.admin import AdminSite

logger = logging.getLogger("django_phi_oidc.sessions")
_APP_LABEL = "django_phi_oidc"
DATABASE_ERRORS = (OperationalError, InterfaceError)
DATABASE_RETRY_AFTER_SECONDS = 10


def find_refusal_page(request: HttpRequest, exception: Exception) -> HttpResponse | None:
    """Return the page for an exception of a view; None: another page is shown."""
    if isinstance(exception, DATABASE_ERRORS):
        return find_outage_response(request, exception)
    if isinstance(exception, RecordedRefusal):
        request.phi_oidc_refusal = exception  # type: ignore[attr-defined]  # for a 403.html of the project
        site = find_admin_site(request)
        if site is not None:
            return _render_admin_refusal(request, exception, site)

        if _has_own_page(request):
            return None
        return _render_portal_refusal(request, exception)
    if (
        isinstance(exception, Http404)
        and _is_own_admin_page(request)
        and (site := find_admin_site(request))
    ):
        context = {"home_url": reverse("admin:index", current_app=site.name)}
        return _render_admin_page(
            request, site, "missing", _("Page not found"), context, status=404
        )
    return None


def find_outage_response(request: HttpRequest, error: Exception) -> HttpResponse | None:
    """Return the response if the database is not available; None for another error, or a URL of the
    project.

    Spec: RFC 9110 15.6.4.
    """
    # SQLite reports a missing table as an OperationalError, too.
    if getattr(error.__cause__, "sqlite_errorname", None) == "SQLITE_ERROR":
        return None
    try:
        match = request.resolver_match or resolve(
            request.path_info, getattr(request, "urlconf", None)
        )
    except Resolver404:
        return None
    if not match.func.__module__.startswith(f"{_APP_LABEL}."):
        return None
    state = getattr(error.__cause__, "sqlstate", None) or "no SQLSTATE"
    logger.error(
        "The database failed during %s: %s (%s)", match.url_name, type(error).__name__, state
    )
    if is_navigation(request):
        # Without the request: a context processor of the project may need the database.
        page = render_to_string(f"{_APP_LABEL}/database_unavailable.html")
        response = set_private_headers(HttpResponse(page, status=503))
    else:
        response = render_problem(
            503, "The database is not available.", code="database_unavailable"
        )
    response["Retry-After"] = str(DATABASE_RETRY_AFTER_SECONDS)
    return response


def find_admin_site(request: HttpRequest) -> "AdminSite | None":
    """Return the admin site that the page belongs to."""
    match = request.resolver_match
    if match is None or "admin" not in match.app_names:
        return None
    name = match.namespaces[match.app_names.index("admin")]
    from django.contrib.admin.sites import all_sites, site  # noqa: PLC0415 -- projects without it do not import it

    # The default site first: others may have its name without being served.
    sites: list[AdminSite] = [site, *all_sites]
    return next((found for found in sites if found.name == name), None)


def _is_own_admin_page(request: HttpRequest) -> bool:
    url_name = request.resolver_match and request.resolver_match.url_name
    return "phi_oidc_" in (url_name or "")


def _has_own_page(request: HttpRequest) -> bool:
    """Return whether the project has a page for status 403."""
    handler: Any = get_resolver(getattr(request, "urlconf", None)).resolve_error_handler(403)
    if handler is not permission_denied:
        return True
    try:
        get_template("403.html")
    except TemplateDoesNotExist:
        return False
    return True


def _render_portal_refusal(request: HttpRequest, refusal: RecordedRefusal) -> HttpResponse:
    """Return a page that does not depend on the rule that refused, nor on whether the resource
    exists.
    """
    context = {
        **_build_account_context(request, refusal),
        "permission": find_permission_name(refusal.permission),
        "emergency_url": refusal.emergency_url,
        "home_url": find_start_url(),
        "sign_out_url": _find_url("oidc_logout"),
    }
    return _set_headers(render(request, f"{_APP_LABEL}/refused.html", context, status=403))


def _render_admin_refusal(
    request: HttpRequest, refusal: RecordedRefusal, site: "AdminSite"
) -> HttpResponse:
    """Return a page in the layout of the admin. Only members of staff see which groups have the
    permission.
    """
    is_staff = site.has_permission(request)
    permission = refusal.permission
    if not is_staff or request.user.has_perm(permission):
        permission = ""
    context = {
        **_build_account_context(request, refusal),
        "is_staff_member": is_staff,
        "needs_provider_session": refusal.reason == SESSION_MISSING,
        "permission": find_permission_name(permission),
        "groups": _list_group_names(permission) if permission else [],
        "home_url": reverse("admin:index", current_app=site.name) if is_staff else find_start_url(),
        # Django's own logout of the admin redirects a user who is not staff back to the admin.
        "sign_out_url": _find_url("oidc_logout")
        or (is_staff and reverse("admin:logout", current_app=site.name)),
    }

    if is_staff:
        title = _("You do not have access")
    else:
        title = _("Only for staff")

    return _render_admin_page(request, site, "refused", title, context, status=403)


def _render_admin_page(
    request: HttpRequest,
    site: "AdminSite",
    name: str,
    title: str,
    context: dict[str, Any],
    *,
    status: int,
) -> HttpResponse:
    request.current_app = site.name
    context = {**site.each_context(request), "title": title, **context}
    if not site.has_permission(request):
        context["is_nav_sidebar_enabled"] = False
    return _set_headers(render(request, f"admin/{_APP_LABEL}/{name}.html", context, status=status))


def _set_headers(response: HttpResponse) -> HttpResponse:
    set_private_headers(response)
    # With `no-referrer` the form that signs out is sent with the origin "null", which Django
    # refuses.
    response["Referrer-Policy"] = "same-origin"
    return response


def _build_account_context(request: HttpRequest, refusal: RecordedRefusal) -> dict[str, Any]:
    user: Any = request.user
    if user.is_authenticated:
        label = get_label(user)
        username = user.get_username()
    else:
        label = ""
        username = ""

    return {
        "label": label,
        "username": username if username != label else "",
        "reference": refusal.reference,
        "other_account_url": _build_other_account_url(request),
    }


def _build_other_account_url(request: HttpRequest) -> str:
    """Return the URL that signs in another person and leads back here; "" if our URLs are not
    included.
    """
    url = _find_url("oidc_authentication_init")
    is_safe = is_navigation(request) and request.method in ("GET", "HEAD")
    next_url = get_return_path(request, is_safe_navigation=is_safe)
    return (
        url
        and f"{url}?{urlencode({'prompt': 'login', **({'next': next_url} if next_url else {})})}"
    )


def _find_url(name: str) -> str:
    try:
        return reverse(name)
    except NoReverseMatch:
        return ""


def find_permission_name(permission: str) -> str:
    """Return the name of `app.codename` for people; "" if the database has no such permission."""
    app_label, _dot, codename = permission.partition(".")
    rows = Permission.objects.select_related("content_type").filter(
        content_type__app_label=app_label
    )

    row = None
    if codename:
        row = rows.filter(codename=codename).first()

    if row is None:
        return ""
    model = row.content_type.model_class()
    operation = codename.partition("_")[0]
    if model is None or codename != f"{operation}_{row.content_type.model}":
        return _(row.name)
    names = {
        "view": _("View %(objects)s"),
        "add": _("Add %(objects)s"),
        "change": _("Change %(objects)s"),
        "delete": _("Delete %(objects)s"),
    }
    text = names.get(operation)
    if text:
        return text % {"objects": model._meta.verbose_name_plural}
    return _(row.name)


def _list_group_names(permission: str) -> list[str]:
    app_label, _dot, codename = permission.partition(".")
    groups = Group.objects.filter(
        permissions__codename=codename, permissions__content_type__app_label=app_label
    )
    return list(groups.order_by("name").distinct().values_list("name", flat=True))
