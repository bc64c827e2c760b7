"""The URL to which a sign-in leads without `next`."""

from types import ModuleType
from typing import Any

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.http import HttpRequest, HttpResponse
from django.urls import clear_script_prefix, include, path, set_script_prefix
from django.utils.translation import override

from django_phi_oidc.login.redirect_url import get_landing_url, is_landing_unset

OURS = path("oidc/", include("django_phi_oidc.urls"))
DEFAULT, CONFIRMATION = "/accounts/profile/", "/oidc/signed-in/"


def show(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


PAGE = path("accounts/profile/", show, name="profile")


def use_urls(settings: Any, *patterns: Any) -> None:
    settings.ROOT_URLCONF = ModuleType("urls")
    settings.ROOT_URLCONF.urlpatterns = [OURS, *patterns]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [(DEFAULT, CONFIRMATION), ("/elsewhere/", "/elsewhere/"), ("https://a.example/", "https://a.example/")],
)
def test_only_the_default_is_replaced_if_the_project_has_no_such_page(
    settings: Any, setting: str, expected: str
) -> None:
    settings.LOGIN_REDIRECT_URL = setting
    use_urls(settings)
    assert get_landing_url() == expected
    assert is_landing_unset() is (setting == DEFAULT)


@pytest.mark.parametrize("setting", [DEFAULT, "profile"])
def test_page_of_the_project_is_used(settings: Any, setting: str) -> None:
    settings.LOGIN_REDIRECT_URL = setting
    use_urls(settings, PAGE)
    assert get_landing_url() == DEFAULT


def test_page_with_the_prefix_of_the_language_is_used(settings: Any) -> None:
    """LocaleMiddleware redirects to it."""
    settings.LOGIN_REDIRECT_URL = DEFAULT
    use_urls(settings, *i18n_patterns(PAGE))
    with override("de"):
        assert get_landing_url() == DEFAULT


def test_default_outside_of_the_path_of_the_project_is_replaced(settings: Any) -> None:
    settings.LOGIN_REDIRECT_URL = DEFAULT
    use_urls(settings, PAGE)
    set_script_prefix("/portal/")
    try:
        assert get_landing_url() == "/portal/oidc/signed-in/"
        settings.LOGIN_REDIRECT_URL = "profile"
        assert get_landing_url() == "/portal/accounts/profile/"
    finally:
        clear_script_prefix()
