"""System check of the URLs: a logout that does not reach the provider."""

from collections.abc import Callable
from typing import Any

from django.contrib.admin import AdminSite
from django.contrib.auth.views import LogoutView
from django.core.checks import Tags

from .._internal.check_messages import Messages, register_check, warning
from ..sessions.user_logout import is_logout_routed
from ._urls import is_shadowed, iterate_routes


@register_check(Tags.security)
def check_logout_views(**kwargs: Any) -> Messages:
    """W046: a URL of Django's own logout, which leaves the session at the provider. Function views
    are NOT checked.
    """
    if not is_logout_routed():
        return
    text = (
        "is Django's logout: the provider's session stays, and signs in again without a password."
    )
    for route, pattern in iterate_routes():
        site = getattr(pattern.callback, "admin_site", None)
        if isinstance(site, AdminSite) and pattern.name == "logout" and "logout" not in vars(site):
            hint = (
                "Before the URLs of the site: django_phi_oidc.login.admin_site.use_oidc_login(site)"
            )
            yield warning(46, f"The URL logout of the admin site {site.name!r} {text}", hint)
        elif _is_django_logout(pattern.callback) and not is_shadowed(route, pattern):
            view = "django_phi_oidc.sessions.user_logout.OIDCLogoutView.as_view()"
            hint = (
                f'Before it in your URLs: path("{route}", {view}, '
                f'name="{pattern.name or "logout"}")'
            )
            yield warning(46, f"The URL {pattern.name or str(pattern.pattern)!r} {text}", hint)


def _is_django_logout(view: Callable[..., Any]) -> bool:
    view_class = getattr(view, "view_class", None)
    return isinstance(view_class, type) and issubclass(view_class, LogoutView)
