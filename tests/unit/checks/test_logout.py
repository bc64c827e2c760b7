"""W046: a URL of Django's own logout next to the logout of this app."""

from types import ModuleType
from typing import Any

import pytest
from django.contrib.admin import AdminSite
from django.contrib.auth.views import LogoutView
from django.core.checks import run_checks
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from django_phi_oidc.login.admin_site import use_oidc_login
from django_phi_oidc.sessions.user_logout import OIDCLogoutView

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])
OURS = path("oidc/", include("django_phi_oidc.urls"))


class Goodbye(LogoutView):
    """A logout view of a host project."""


def leave(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


def create_site(*, is_oidc: bool) -> AdminSite:
    site = AdminSite(name="desk")
    if is_oidc:
        use_oidc_login(site)
    return site


def find_messages(settings: Any, *patterns: Any) -> list[str]:
    settings.ROOT_URLCONF = ModuleType("urls")
    settings.ROOT_URLCONF.urlpatterns = list(patterns)
    return [message.msg for message in run_checks() if message.id == "django_phi_oidc.W046"]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        (path("out/", LogoutView.as_view(), name="logout"), path("out/", OIDCLogoutView.as_view(), name="logout")),
        (path("out/", Goodbye.as_view()), path("out/", leave)),
        (path("accounts/", include("django.contrib.auth.urls")), path("accounts/", include(([], "accounts")))),
        (path("desk/", create_site(is_oidc=False).urls), path("desk/", create_site(is_oidc=True).urls)),
    ],
)
def test_b5_django_logout_beside_the_logout_of_this_app_is_reported(settings: Any, wrong: Any, right: Any) -> None:
    (message,) = find_messages(settings, OURS, wrong)
    assert "is Django's logout" in message
    assert find_messages(settings, OURS, right) == []
    assert find_messages(settings, wrong) == [], "without the URLs of this app there is no other logout"


def test_line_of_the_hint_resolves_the_message_of_an_included_url(settings: Any) -> None:
    included = path("accounts/", include("django.contrib.auth.urls"))
    settings.ROOT_URLCONF = ModuleType("urls")
    settings.ROOT_URLCONF.urlpatterns = [OURS, included]
    (hint,) = (str(message.hint) for message in run_checks() if message.id == "django_phi_oidc.W046")
    assert 'path("accounts/logout/", ' in hint
    line = path("accounts/logout/", OIDCLogoutView.as_view(), name="logout")
    assert find_messages(settings, OURS, line, included) == []
    assert len(find_messages(settings, OURS, included, line)) == 1, "the first of two URLs counts"
