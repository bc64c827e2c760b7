"""Where a sign-in leads without `next`: LOGIN_REDIRECT_URL, or a page that confirms the sign-in."""

from django.conf import global_settings, settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.generic import View

from .._internal.app_configs import list_installed_features
from .._internal.view_decorators import public_view
from ..access.responses import find_start_url, find_url, has_page, set_private_headers


def get_landing_url() -> str:
    """Return the URL to which a sign-in without `next` leads: of LOGIN_REDIRECT_URL if it is
    usable, or of our page.
    """
    return _find_project_url() or reverse("oidc_signed_in")


def is_landing_unset() -> bool:
    """Return whether LOGIN_REDIRECT_URL is Django's default, and the project has no page there.

    NOT checked: that any other URL has a page, because another server may respond there.
    """
    default = str(global_settings.LOGIN_REDIRECT_URL)
    return bool(default == settings.LOGIN_REDIRECT_URL) and not has_page(default)


def _find_project_url() -> str:
    if is_landing_unset():
        return ""
    return find_url(settings.LOGIN_REDIRECT_URL)


@method_decorator(public_view, name="dispatch")
class SignedInView(View):
    """State whether the user is signed in. With DEBUG, the page names the setting that replaces
    it.
    """

    http_method_names = ("get", "head")

    def get(self, request: HttpRequest) -> HttpResponse:
        context = {
            "signed_in": request.user.is_authenticated,
            "account": request.user.pk,
            "start_url": find_start_url(),
            "is_debug": settings.DEBUG,
            "can_grant": any("admin" in config.subcommands for config in list_installed_features()),
            "is_unset": not _find_project_url(),
            "setting": settings.LOGIN_REDIRECT_URL,
        }
        response = set_private_headers(render(request, "django_phi_oidc/signed_in.html", context))
        # With `no-referrer`, browsers would send this page's form with the origin "null", which
        # Django refuses.
        response["Referrer-Policy"] = "same-origin"
        return response
