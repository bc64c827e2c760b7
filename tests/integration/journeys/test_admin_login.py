"""The way into the admin: to the provider, and back to the page that was asked for."""

from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib.auth import get_user_model

from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.integration.journeys.test_transactions import audit_database_away
from tests.support.http_browser import Browser, PortalResponse
from tests.support.portal_fixtures import EVERYTHING, events

pytestmark = pytest.mark.django_db(**EVERYTHING)
PAGE = "/admin/auth/user/"


@pytest.fixture(autouse=True)
def _with_an_admin(portal: str, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.urls"
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False


def led(browser: Browser, op: DemoProvider, url: str) -> PortalResponse:
    """Ask for the page, go where its redirects lead, sign in at the provider, and return what the callback answers."""
    page = browser.get(url)
    while page.status == 302 and not page.location.startswith(op.issuer):
        page = browser.get(page.location)
    return browser.get(op.authorize(page.location, "amina", cookies=browser.provider_cookies))


def test_admin_is_reached_by_way_of_the_provider(op: DemoProvider, browser: Browser) -> None:
    assert led(browser, op, PAGE).location == PAGE
    refused = browser.get(browser.get(PAGE).location)
    assert (refused.status, refused.location) == (403, ""), "no member of staff, and no loop"
    (denied,) = events(action="access.denied")
    assert (denied.reason, denied.detail) == ("permission_missing", '{"page":"login"}')
    with audit_database_away():
        assert browser.get(browser.get(PAGE).location).status == 503
    get_user_model()._default_manager.update(is_staff=True, is_superuser=True)
    assert browser.get(PAGE).status == 200
    assert len(events(action="access.denied")) == 1


def test_admins_sign_in_leads_to_no_other_host(op: DemoProvider, browser: Browser) -> None:
    assert led(browser, op, f"/admin/login/?next={PAGE}").location == PAGE
    there = led(Browser(browser.base_url), op, "/admin/login/?next=https://evil.example/admin/")
    assert (there.status, urlsplit(there.location).netloc) == (302, "")
