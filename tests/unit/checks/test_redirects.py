"""E037 and W037: the pages to which a sign-in and a sign-out lead."""

from types import ModuleType
from typing import Any

import pytest
from django.core.checks import run_checks
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])
OURS = path("oidc/", include("django_phi_oidc.urls"))
DEFAULT = "/accounts/profile/"


def show(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


def find_messages(settings: Any, *patterns: Any) -> list[tuple[str, str]]:
    settings.ROOT_URLCONF = ModuleType("urls")
    settings.ROOT_URLCONF.urlpatterns = list(patterns)
    return [(str(item.id)[-4:], item.hint) for item in run_checks() if str(item.id)[-3:] == "037"]


@pytest.mark.parametrize("setting", ["LOGIN_REDIRECT_URL", "LOGOUT_REDIRECT_URL"])
def test_name_that_no_url_has_is_an_error(settings: Any, setting: str) -> None:
    setattr(settings, setting, "start")
    start = path("start/", show, name="start")
    assert find_messages(settings, OURS) == [("E037", f'In your settings: {setting} = "name-of-your-start-page"')]
    assert find_messages(settings, OURS, start) == []
    assert find_messages(settings) == [], "without the URLs of this app there is no sign-in"


def test_default_without_a_page_is_reported_with_the_line_to_paste(settings: Any) -> None:
    settings.LOGIN_REDIRECT_URL = DEFAULT
    assert find_messages(settings, OURS) == [
        ("W037", 'In your settings: LOGIN_REDIRECT_URL = "name-of-your-start-page"')
    ]
    assert find_messages(settings, OURS, path("", show)) == [("W037", 'In your settings: LOGIN_REDIRECT_URL = "/"')]
    assert find_messages(settings, OURS, path("accounts/profile/", show)) == []
    assert find_messages(settings) == [], "without the URLs of this app there is no sign-in"


@pytest.mark.parametrize("url", ["/elsewhere/", "https://portal.example.test/"])
def test_url_that_another_server_may_serve_is_accepted(settings: Any, url: str) -> None:
    settings.LOGIN_REDIRECT_URL = settings.LOGOUT_REDIRECT_URL = url
    assert find_messages(settings, OURS) == []
