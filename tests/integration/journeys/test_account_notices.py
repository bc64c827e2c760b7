"""A sign-in with a new browser, over real sockets: the person gets a mail, and the sign-in does not wait for it."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from django_phi_oidc._internal import clock
from django_phi_oidc.contrib.notices.models import AccountNotice, KnownDevice
from django_phi_oidc.contrib.notices.tasks import send_notices
from django_phi_oidc.login.reauthentication import COOKIE_NAME
from django_phi_oidc.subjects.models import PairwiseSubject
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange
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


def kinds() -> list[str]:
    return sorted(AccountNotice.objects.values_list("kind", flat=True))


def test_asvs_6_3_5_sign_in_after_a_long_absence_is_notified(op: DemoProvider, portal: str) -> None:
    browser = Browser(portal)
    sign_in(op, browser)
    set_address()
    sign_in(op, browser)
    AccountNotice.objects.all().delete()
    for days, expected in ((89, []), (90, ["long_absence"])):
        PairwiseSubject.objects.update(last_seen_at=clock.now() - timedelta(days=days))
        sign_in(op, browser)
        assert kinds() == expected
    PairwiseSubject.objects.update(last_seen_at=clock.now() - timedelta(days=90))
    sign_in(op, Browser(portal))
    assert kinds() == ["long_absence", "new_device"], "one mail about one sign-in"


def test_asvs_6_3_5_sign_in_to_a_deactivated_account_is_notified(op: DemoProvider, portal: str) -> None:
    browser = Browser(portal)
    sign_in(op, browser)
    user = set_address()
    user.is_active = False
    user.save()
    assert Browser(portal).sign_in(op, "jonas").status == 302, "another person"
    assert kinds() == []
    for _ in range(2):
        assert Browser(portal).sign_in(op).status == 403
    assert kinds() == ["sign_in_refused"]


def test_asvs_6_3_5_too_weak_sign_in_of_a_known_person_is_notified(
    op: DemoProvider, portal: str, settings: Any
) -> None:
    sign_in(op, Browser(portal))
    set_address()
    provider = {**settings.PHI_OIDC["PROVIDERS"]["default"], "acr_values": ["urn:example:loa:3"]}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": provider}}

    def weaken(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "id_token":
            exchange.claims["acr"] = "urn:example:loa:2"

    op.mutate = weaken
    assert Browser(portal).sign_in(op, "jonas").status == 403
    assert kinds() == [], "a person without an account here"
    assert Browser(portal).sign_in(op).status == 403
    assert kinds() == ["sign_in_refused"]


def test_asvs_6_3_5_failed_step_up_is_notified(op: DemoProvider, portal: str, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.integration.journeys.guarded_urls"
    browser = Browser(portal)
    sign_in(op, browser)
    set_address()
    browser.headers["Accept"] = "text/html"
    leaving = browser.get(browser.get("/strong/").location)
    assert browser.get(op.authorize(leaving.location, "amina", cookies=browser.provider_cookies)).status == 302
    assert kinds() == []
    browser.provider_cookies.clear()
    later = clock.now() + timedelta(minutes=6)
    with clock.override_clock(lambda: later):
        leaving = browser.get(browser.get("/fresh/").location)
        assert browser.get(op.authorize(leaving.location, "jonas", cookies=browser.provider_cookies)).status == 403
    assert kinds() == ["step_up_refused"]
