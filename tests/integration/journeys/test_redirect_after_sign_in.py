"""Where a sign-in and a sign-out lead without a page of the project, over a socket."""

import re
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.http import HttpRequest, HttpResponse
from django.urls import path

from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.support import portal_urls
from tests.support.http_browser import Browser
from tests.support.portal_fixtures import EVERYTHING

pytestmark = pytest.mark.django_db(**EVERYTHING)
DEFAULT, CONFIRMATION = "/accounts/profile/", "/oidc/signed-in/"
START_LINK = '<a href="/">To the start page</a>'


def show(request: HttpRequest) -> HttpResponse:
    return HttpResponse("a page of the project")


def add_page(settings: Any, *routes: str) -> None:
    """Add pages to the URLs of the portal."""
    urls: Any = ModuleType("urls_with_pages")
    urls.urlpatterns = [*portal_urls.urlpatterns, *(path(route, show) for route in routes)]
    settings.ROOT_URLCONF = urls


def sign_in(browser: Browser, op: DemoProvider) -> str:
    """Sign in without `next`, and return the URL of the next page."""
    browser.default_next_url = ""
    return browser.sign_in(op).location


def test_sign_in_without_a_page_of_the_project_leads_to_a_page_that_confirms_it(
    op: DemoProvider, browser: Browser, settings: Any
) -> None:
    settings.LOGIN_REDIRECT_URL, settings.LOGOUT_REDIRECT_URL = DEFAULT, None
    assert sign_in(browser, op) == CONFIRMATION
    page = browser.get(CONFIRMATION)
    assert (page.status, "<h1>You are signed in</h1>" in page.body) == (200, True)
    assert not re.search("LOGIN_REDIRECT_URL|To the start page|admin grant|1984|amina|phi_(?!oidc)", page.body, re.I)
    assert dict(page.headers)["Cache-Control"] == "no-store"
    fields = {"csrfmiddlewaretoken": re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page.body)[0]}
    assert browser.post("/oidc/logout/", **fields).location.startswith(op.issuer)
    assert OIDCSession.objects.get().end_reason == "logout"


def test_page_names_the_setting_and_the_next_command_with_debug(
    op: DemoProvider, browser: Browser, settings: Any
) -> None:
    settings.LOGIN_REDIRECT_URL, settings.LOGOUT_REDIRECT_URL, settings.DEBUG = DEFAULT, None, True
    assert sign_in(browser, op) == CONFIRMATION
    assert '<code>LOGIN_REDIRECT_URL = "name-of-your-start-page"</code>' in browser.get(CONFIRMATION).body
    add_page(settings, "")
    page = browser.get(CONFIRMATION).body
    assert '<code>LOGIN_REDIRECT_URL = "/"</code>' in page
    assert f"<code>python manage.py phi_oidc admin grant pk:{get_user_model().objects.get().pk}</code>" in page
    assert 'href="/">To the start page' in page
    settings.LOGIN_REDIRECT_URL = "/"
    assert "LOGIN_REDIRECT_URL" not in browser.get(CONFIRMATION).body


def test_sign_in_leads_to_the_default_page_if_the_project_has_one(
    op: DemoProvider, browser: Browser, settings: Any
) -> None:
    settings.LOGIN_REDIRECT_URL = DEFAULT
    add_page(settings, "accounts/profile/")
    assert sign_in(browser, op) == DEFAULT
    assert browser.get(DEFAULT).body == "a page of the project"


def test_name_that_no_url_has_does_not_fail_the_sign_in(op: DemoProvider, browser: Browser, settings: Any) -> None:
    settings.LOGIN_REDIRECT_URL = settings.LOGOUT_REDIRECT_URL = "start"
    assert sign_in(browser, op) == CONFIRMATION
    assert browser.get(CONFIRMATION).status == 200
    assert browser.get("/oidc/logged-out/").status == 200


def test_page_asks_a_browser_without_a_session_to_sign_in(browser: Browser) -> None:
    page = browser.get(CONFIRMATION)
    assert (page.status, "<h1>You are not signed in</h1>" in page.body) == (200, True)
    assert 'href="/oidc/authenticate/">Sign in</a>' in page.body


@pytest.mark.parametrize(("setting", "has_start_page"), [(None, True), (None, False), ("/", False)])
def test_page_after_a_sign_out_links_the_start_page_only_if_there_is_one(
    setting: str | None, has_start_page: bool, browser: Browser, settings: Any
) -> None:
    settings.LOGOUT_REDIRECT_URL = setting
    add_page(settings, *([""] if has_start_page else []))
    page = browser.get("/oidc/logged-out/")
    assert "<h1>You are signed out</h1>" in page.body
    assert (START_LINK in page.body) is (has_start_page or setting == "/"), "another server may respond at a set URL"
