"""Sign-in to the admin: to the provider and back to the requested page."""

from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib.auth import get_user_model

from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.integration.journeys.test_transactions import audit_database_away
from tests.support.http_browser import Browser, PortalResponse
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.portal_fixtures import EVERYTHING, events

pytestmark = pytest.mark.django_db(**EVERYTHING)
PAGE = "/admin/auth/user/"


@pytest.fixture(autouse=True)
def _with_an_admin(portal: str, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.urls"
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False


def sign_in_for(browser: Browser, op: DemoProvider, url: str) -> PortalResponse:
    """Open the page, follow its redirects, sign in at the provider, and return the response of the callback."""
    page = browser.get(url)
    while page.status == 302 and not page.location.startswith(op.issuer):
        page = browser.get(page.location)
    return browser.get(op.authorize(page.location, "amina", cookies=browser.provider_cookies))


def test_admin_sign_in_uses_the_provider(op: DemoProvider, browser: Browser) -> None:
    assert sign_in_for(browser, op, PAGE).location == PAGE
    refused = browser.get(browser.get(PAGE).location)
    assert (refused.status, refused.location) == (403, ""), "not a member of staff: refused without a redirect loop"
    (denied,) = events(action="access.denied")
    assert (denied.reason, denied.detail) == ("permission_missing", '{"page":"login"}')
    with audit_database_away():
        assert browser.get(browser.get(PAGE).location).status == 503
    get_user_model()._default_manager.update(is_staff=True, is_superuser=True)
    assert browser.get(PAGE).status == 200
    assert len(events(action="access.denied")) == 1


def test_admin_sign_in_does_not_redirect_to_another_host(op: DemoProvider, browser: Browser) -> None:
    assert sign_in_for(browser, op, f"/admin/login/?next={PAGE}").location == PAGE
    page = sign_in_for(Browser(browser.base_url), op, "/admin/login/?next=https://evil.example/admin/")
    assert (page.status, urlsplit(page.location).netloc) == (302, "")


def test_g14_weak_sign_in_is_stepped_up_and_leads_back_to_the_page(
    op: DemoProvider, browser: Browser, settings: Any
) -> None:
    strong = "urn:example:loa:3"
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, ADMIN_ASSURANCE={"acr": [strong], "max_age": 600})
    assert sign_in_for(browser, op, PAGE).location == PAGE
    get_user_model()._default_manager.update(is_staff=True, is_superuser=True)
    browser.headers["Accept"] = "text/html"
    assert sign_in_for(browser, op, PAGE).location == PAGE
    assert browser.get(PAGE).status == 200
    (denied,), (renewed,) = events(action="access.denied"), events(action="session.renewed")
    assert (denied.reason, renewed.detail) == ("acr_insufficient", f'{{"acr":"{strong}"}}')
