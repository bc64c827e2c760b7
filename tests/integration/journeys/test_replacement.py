"""A sign-in while a user is signed in, over real sockets: a link alone does not replace the session."""

import html
import re
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session

from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.support.foreign_sessions import (
    FORMER_BACKEND,
    MODEL_BACKEND,
    MOZILLA_TOKENS,
    begin_foreign_session,
    create_id_token,
)
from tests.support.http_browser import Browser
from tests.support.portal_fixtures import EVERYTHING, events
from tests.support.session_fixtures import SecureClient

pytestmark = pytest.mark.django_db(**EVERYTHING)
SIGN_IN = "/oidc/authenticate/"


def find_consent_link(body: str) -> str:
    link = re.search(r'href="([^"]*[?;]replace=[^"]*)"', body)
    assert link, body
    return html.unescape(link[1])


def test_b8_link_to_the_sign_in_keeps_a_live_session(op: DemoProvider, browser: Browser) -> None:
    assert browser.get(SIGN_IN).status == 302, "nobody is signed in"
    assert browser.sign_in(op).status == 302
    user, cookies = browser.user(), dict(browser.cookies)
    op.requests.clear()
    page = browser.get(f"{SIGN_IN}?next=/portal/guarded/")
    assert (page.status, page.location) == (200, "")
    assert page.join_header_values("Cache-Control") == "no-store"
    assert page.join_header_values("X-Frame-Options") == "DENY"
    assert (browser.cookies, browser.user()) == (cookies, user)
    assert OIDCSession.objects.get().ended_at is None
    assert StoredClaim.objects.exists()
    assert op.requests == []


def test_b8_session_is_replaced_with_the_consent_of_its_user(op: DemoProvider, browser: Browser) -> None:
    assert browser.sign_in(op).status == 302
    page = browser.get(f"{SIGN_IN}?next=/portal/home/%3Fa=b")
    assert 'href="/portal/home/?a=b"' in page.body, "the user can continue without it"
    redirect = browser.get(find_consent_link(page.body))
    assert redirect.status == 302
    callback = browser.get(op.authorize(redirect.location, "jonas"))
    assert (callback.status, callback.location) == (302, "/portal/home/?a=b")
    assert sorted(OIDCSession.objects.values_list("end_reason", flat=True)) == ["", "replaced"]


def test_b8_consent_of_another_session_is_none(op: DemoProvider, browser: Browser, portal: str) -> None:
    assert browser.sign_in(op).status == 302
    attacker = Browser(portal)
    assert attacker.sign_in(op, "jonas").status == 302
    link = find_consent_link(attacker.get(SIGN_IN).body)
    for url in (link, f"{SIGN_IN}?replace=", f"{SIGN_IN}?replace=%C3%A9"):
        assert browser.get(url).status == 200
    assert attacker.get(link).status == 302


def test_b8_next_url_of_another_host_is_not_shown(op: DemoProvider, browser: Browser) -> None:
    assert browser.sign_in(op).status == 302
    page = browser.get(f"{SIGN_IN}?next=https://evil.example/")
    assert "evil.example" not in page.body
    assert 'class="button" href="/"' in page.body


def test_b8_password_session_is_a_live_session_too(op: DemoProvider, settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
    client = SecureClient()
    assert client.get(SIGN_IN).status_code == 302
    client.force_login(get_user_model().objects.create_user("local"))
    page = client.get(SIGN_IN)
    assert page.status_code == 200
    assert client.get(find_consent_link(page.content.decode())).status_code == 302


@pytest.mark.parametrize("query", ["", "?prompt=login"])
def test_f4_consent_keeps_the_request_for_an_authentication(op: DemoProvider, browser: Browser, query: str) -> None:
    assert browser.sign_in(op).status == 302
    location = browser.get(find_consent_link(browser.get(f"{SIGN_IN}{query}").body)).location
    assert ("prompt=login" in location) is bool(query)


@pytest.mark.parametrize("backend", [FORMER_BACKEND, MODEL_BACKEND])
def test_tokens_of_another_backend_are_revoked_when_its_session_is_replaced(
    op: DemoProvider, portal: str, settings: Any, backend: str
) -> None:
    """The user of the former backend is anonymous, so no consent is needed."""
    settings.AUTHENTICATION_BACKENDS = [*settings.AUTHENTICATION_BACKENDS, MODEL_BACKEND]
    key = begin_foreign_session(backend=backend, **MOZILLA_TOKENS, oidc_id_token=create_id_token(op.issuer))
    browser = Browser(portal, cookies={settings.SESSION_COOKIE_NAME: key})
    page = browser.get(SIGN_IN)
    if backend == MODEL_BACKEND:
        page = browser.get(find_consent_link(page.body))
    assert browser.get(op.authorize(page.location, "amina")).status == 302
    assert browser.user() != ""
    assert not Session.objects.filter(pk=key).exists()
    assert len(events(action="token.revoked", provider="default")) == 2
