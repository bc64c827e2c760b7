"""The examples of the how-to on themes of the admin. The browser tests with django-unfold use the same middleware."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from tests.support.manual_blocks import block


def answer(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


def test_weaker_policy_is_only_on_pages_of_the_admin() -> None:
    project: dict[str, Any] = {}
    exec(block("admin-themes", "policy"), project)
    middleware = project["content_security_policy"](answer)
    admin_page, other_page = (middleware(RequestFactory().get(path)) for path in ("/admin/", "/oidc/logged-out/"))
    policy = admin_page.headers["Content-Security-Policy"]
    assert "script-src 'self' 'unsafe-eval';" in policy
    assert "script-src 'self' 'unsafe-eval' 'unsafe-inline'" not in policy
    assert "Content-Security-Policy" not in other_page.headers


def test_theme_is_installed_before_the_admin() -> None:
    project: dict[str, Any] = {}
    exec(block("admin-themes", "apps"), project)
    apps = project["INSTALLED_APPS"]
    assert apps.index("unfold") < apps.index("django.contrib.admin")
