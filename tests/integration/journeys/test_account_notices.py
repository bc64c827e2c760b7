"""A sign-in with a new browser, over real sockets: the person gets a mail, and the sign-in does not wait for it."""

from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from django_phi_oidc.login.reauthentication import COOKIE_NAME
from django_phi_oidc.subjects.models import AccountNotice, KnownDevice
from django_phi_oidc.subjects.tasks import send_notices
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.support.http_browser import Browser
from tests.support.mail_server import mail_server  # noqa: F401 -- a fixture
from tests.support.portal_fixtures import EVERYTHING

pytestmark = pytest.mark.django_db(**EVERYTHING)


def sign_in(op: DemoProvider, browser: Browser) -> None:
    assert browser.sign_in(op).status == 302
    assert browser.user() != ""


def set_address(address: str = "amina@example.org") -> Any:
    user: Any = get_user_model()._default_manager.get()
    user.email = address
    user.save()
    return user


def test_g12_person_gets_a_mail_after_the_first_sign_in_with_a_browser(
    op: DemoProvider, portal: str, mail_server: SimpleNamespace
) -> None:
    first, second = Browser(portal), Browser(portal)
    sign_in(op, first)
    assert not KnownDevice.objects.exists(), "the account has no address"
    set_address()
    for browser, count in ((first, 1), (first, 1), (second, 2), (first, 2), (second, 2)):
        sign_in(op, browser)
        assert (KnownDevice.objects.count(), AccountNotice.objects.count()) == (count, count)
    assert mail_server.mails == []
    send_notices()
    assert len(mail_server.mails) == 2
    assert "with a browser that was not used for it before" in mail_server.mails[0]
    second.cookies.pop(COOKIE_NAME)
    sign_in(op, second)
    assert AccountNotice.objects.count() == 3


def test_g12_cookie_is_set_after_the_sign_in_and_only_for_users_with_notices(
    op: DemoProvider, portal: str, settings: Any
) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "ACCOUNT_NOTICES": False}
    browser = Browser(portal)
    browser.start_sign_in()
    assert COOKIE_NAME not in browser.cookies
    sign_in(op, browser)
    set_address()
    sign_in(op, browser)
    assert not KnownDevice.objects.exists()
    settings.PHI_OIDC = {**settings.PHI_OIDC, "ACCOUNT_NOTICES": True}
    page = browser.sign_in(op)
    cookie = next(value for name, value in page.headers if name == "Set-Cookie" and value.startswith(COOKIE_NAME))
    assert "HttpOnly" in cookie
    assert KnownDevice.objects.count() == 1


def test_g12_unavailable_mail_server_does_not_delay_a_sign_in(op: DemoProvider, portal: str) -> None:
    sign_in(op, Browser(portal))
    set_address()
    sign_in(op, Browser(portal))
    send_notices()
    assert AccountNotice.objects.get().attempts == 1
