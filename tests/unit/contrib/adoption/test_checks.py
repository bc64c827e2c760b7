"""What is left of mozilla-django-oidc is reported: E086 to E088, W086. W087: tests/integration/adoption."""

from typing import Any

import pytest
from django.core.checks import run_checks
from django.test import override_settings
from django.urls import include, path
from mozilla_django_oidc.views import OIDCAuthenticationRequestView

from django_phi_oidc.backends import OIDCAuthenticationBackend
from tests.unit.contrib.adoption import mozilla_classes

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])
CLASSES = "tests.unit.contrib.adoption.mozilla_classes"
REFRESH = "mozilla_django_oidc.middleware.SessionRefresh"
BACKEND = "mozilla_django_oidc.auth.OIDCAuthenticationBackend"
DRF = "mozilla_django_oidc.contrib.drf.OIDCAuthentication"


class PortalBackend(OIDCAuthenticationBackend):
    """Derives from the backend of mozilla-django-oidc, too, by that of this package."""


class ReadsUserInfo(OIDCAuthenticationBackend):
    def get_userinfo(self, access_token: str, id_token: str, payload: Any) -> Any:
        return {}


class MatchesByName(OIDCAuthenticationBackend):
    def get_or_create_user(self, access_token: str, id_token: str, payload: Any) -> Any:
        return None


class Begin(OIDCAuthenticationRequestView):
    """A project's own view."""


class UrlsOfMozilla:
    urlpatterns = (path("oidc/", include("tests.urls")), path("login/", Begin.as_view(), name="portal_login"))


class UrlsOfThisPackage:
    urlpatterns = (path("oidc/", include("django_phi_oidc.urls")),)


def find_messages(**changed: Any) -> dict[str, str]:
    with override_settings(**changed):
        numbers = ("E086", "E087", "E088", "W086", "W087")
        found = [item for item in run_checks() if item.id and item.id.endswith(numbers)]
    return {str(item.id)[-4:]: f"{item.msg} {item.hint}" for item in found}


def extend(settings: Any, name: str, *items: str) -> dict[str, Any]:
    return {name: [*getattr(settings, name), *items]}


@pytest.mark.parametrize("middleware", [REFRESH, f"{CLASSES}.PortalRefresh"])
def test_middleware_that_redirects_pages_to_the_provider_is_an_error(settings: Any, middleware: str) -> None:
    """E086."""
    found = find_messages(**extend(settings, "MIDDLEWARE", middleware))
    assert list(found) == ["E086"]
    assert f'MIDDLEWARE.remove("{middleware}")' in found["E086"]
    harmless = "django.middleware.locale.LocaleMiddleware"
    assert find_messages(**extend(settings, "MIDDLEWARE", harmless)) == {}


@pytest.mark.parametrize("backend", [BACKEND, f"{CLASSES}.PortalBackend"])
def test_backend_that_derives_from_the_other_one_alone_is_an_error(settings: Any, backend: str) -> None:
    """E087."""
    found = find_messages(**extend(settings, "AUTHENTICATION_BACKENDS", backend))
    assert list(found) == ["E087"]
    assert f'AUTHENTICATION_BACKENDS.remove("{backend}")' in found["E087"]
    assert find_messages(AUTHENTICATION_BACKENDS=[f"{__name__}.PortalBackend"]) == {}


@pytest.mark.parametrize(
    ("backend", "ids"), [("ReadsUserInfo", {"E012"}), ("MatchesByName", {"E012"}), ("PortalBackend", set())]
)
def test_hook_of_the_other_library_that_is_never_called_is_an_error(backend: str, ids: set[str]) -> None:
    """E012."""
    with override_settings(AUTHENTICATION_BACKENDS=[f"{__name__}.{backend}"]):
        assert {str(item.id)[-4:] for item in run_checks()} == ids


def test_views_and_api_authentication_of_the_other_library_are_errors() -> None:
    """E088."""
    found = find_messages(REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": [DRF]})
    assert DRF in found["E088"]
    own = "django_phi_oidc.contrib.rest_framework.authentication.BearerAuthentication"
    assert find_messages(REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": [own]}) == {}
    found = find_messages(ROOT_URLCONF=UrlsOfMozilla)
    assert "portal_login" in found["E088"]
    assert find_messages(ROOT_URLCONF=UrlsOfThisPackage) == {}


def test_settings_without_effect_are_reported_and_before_the_change_those_to_take_over(settings: Any) -> None:
    """W086."""
    old = {"OIDC_RP_CLIENT_ID": "portal", "OIDC_OP_TOKEN_ENDPOINT": "https://op.example/token"}
    found = find_messages(**old)
    assert "have no effect" in found["W086"]
    assert all(name in found["W086"] for name in old)
    found = find_messages(**old, PHI_OIDC={})
    assert "migrate-from mozilla" in found["W086"]
    assert find_messages(OIDC_OF_THE_PROJECT="x") == {}


def test_classes_of_the_tests_are_those_of_a_project() -> None:
    assert mozilla_classes.PortalBackend.__mro__[1].__module__ == "mozilla_django_oidc.auth"
