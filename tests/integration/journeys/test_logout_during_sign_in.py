"""A logout token that arrives while a sign-in of the same person is in progress, over real sockets."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.models import Session

from django_phi_oidc._internal import clock
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.login.state_cookie import STATE_LIFETIME
from django_phi_oidc.replay.cache import delete_expired
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange
from tests.integration.journeys.rule_codes import shows
from tests.integration.journeys.test_step_up import to_provider
from tests.support.http_browser import Browser, PortalResponse
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.portal_fixtures import EVERYTHING, client, events

pytestmark = pytest.mark.django_db(**EVERYTHING)
Logout = Callable[[], dict[str, str]]


@pytest.fixture(autouse=True)
def _logout_uri(op: DemoProvider, portal: str) -> None:
    op.register_client(replace(client(portal), backchannel_logout_uri=f"{portal}/oidc/backchannel-logout/"))


def log_out(op: DemoProvider, **about: str) -> None:
    assert op.send_backchannel_logout("portal", **about).status == 200


@contextmanager
def logout_during_exchange(op: DemoProvider, about: Callable[[], dict[str, str]]) -> Iterator[None]:
    """Send the logout token when the portal has sent the code, before it gets its tokens."""

    def send(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "token":
            log_out(op, **about())

    op.mutate = send
    try:
        yield
    finally:
        op.mutate = None


def assert_refused(op: DemoProvider, browser: Browser, page: PortalResponse) -> None:
    assert page.status == 403
    assert "logged_out" not in page.body
    assert [event.reason for event in events(action="login.refused")] == ["logged_out"]
    (begun,) = events(action="login.succeeded")
    ended = [(event.session, event.reason) for event in events(action="session.ended")]
    assert ended == [(begun.session, "backchannel_logout")]
    assert browser.user() == ""
    assert not OIDCSession.objects.live().exists()
    assert set(OIDCSession.objects.values_list("end_reason", flat=True)) == {"backchannel_logout"}
    assert not Session.objects.exists()
    assert not StoredClaim.objects.filter(name="birthdate").exists()
    assert op.active_tokens == []


@shows("logged_out")
@pytest.mark.parametrize(
    ("matching", "other"),
    [
        (lambda grant: {"sid": grant.sid}, {"sid": "another"}),
        (lambda grant: {"sub": grant.sub}, {"sub": "another"}),
        (lambda grant: {"sub": "raw-user-id", "sid": grant.sid}, {"sub": "raw-user-id", "sid": "another"}),
    ],
    ids=["sid", "sub", "both"],
)
def test_b3_logout_during_a_sign_in_refuses_it(
    op: DemoProvider, browser: Browser, portal: str, matching: Callable[[Any], dict[str, str]], other: dict[str, str]
) -> None:
    with logout_during_exchange(op, lambda: matching(op.last_grant)):
        page = browser.sign_in(op)
    assert_refused(op, browser, page)
    with logout_during_exchange(op, lambda: other):
        assert Browser(portal).sign_in(op).status == 302
    assert OIDCSession.objects.live().count() == 1


def test_b3_sign_in_that_begins_after_the_logout_is_accepted(op: DemoProvider, browser: Browser) -> None:
    log_out(op, sub=op.get_subject("amina", "portal"))
    assert browser.sign_in(op).status == 302
    assert browser.user() != ""


def test_b3_logout_is_remembered_for_as_long_as_a_sign_in_may_take(op: DemoProvider, browser: Browser) -> None:
    location, sub = browser.start_sign_in().location, op.get_subject("amina", "portal")
    log_out(op, sub=sub)
    later = clock.now() + STATE_LIFETIME - timedelta(seconds=5)
    with clock.override_clock(lambda: later):
        delete_expired(now=later)
        assert_refused(op, browser, browser.get(op.authorize(location, "amina")))


def test_b3_later_logout_is_remembered_from_then_on(op: DemoProvider, browser: Browser) -> None:
    log_out(op, sub=op.get_subject("amina", "portal"))
    callback = browser.get_callback_url(op)
    log_out(op, sub=op.last_grant.sub)
    assert_refused(op, browser, browser.get(callback))


@pytest.mark.postgresql
@pytest.mark.parametrize("about", ["sid", "sub"])
def test_b3_logout_in_the_transaction_of_the_session_refuses_the_sign_in(
    op: DemoProvider, browser: Browser, about: str
) -> None:
    """The logout token is processed before the new session is committed, so it does not find it."""
    sent: list[bool] = []

    def receive(**kwargs: Any) -> None:
        logout = threading.Thread(target=log_out, args=(op,), kwargs={about: getattr(op.last_grant, about)})
        logout.start()
        logout.join(timeout=20)
        sent.append(not logout.is_alive())

    user_logged_in.connect(receive)
    try:
        page = browser.sign_in(op)
    finally:
        user_logged_in.disconnect(receive)
    assert sent == [True]
    assert_refused(op, browser, page)


def test_b3_logout_of_the_new_sid_during_a_step_up_ends_the_session(
    op: DemoProvider, browser: Browser, settings: Any
) -> None:
    settings.ROOT_URLCONF = "tests.integration.journeys.guarded_urls"
    assert browser.sign_in(op).status == 302
    browser.headers["Accept"] = "text/html"
    leaving = to_provider(browser, "/strong/").location
    callback = op.authorize(leaving, "amina")
    with logout_during_exchange(op, lambda: {"sid": op.last_grant.sid}):
        page = browser.get(callback)
    assert page.status == 403
    assert [event.reason for event in events(action="login.refused")] == ["logged_out"]
    assert OIDCSession.objects.get().end_reason == "backchannel_logout"
    assert browser.user() == ""
    assert op.active_tokens == []


def test_b3_step_up_that_cannot_look_for_a_logout_ends_the_session(
    op: DemoProvider, browser: Browser, settings: Any
) -> None:
    settings.ROOT_URLCONF = "tests.integration.journeys.guarded_urls"
    keys = settings.PHI_OIDC["KEYS"]["subject"]

    def read_keys() -> Any:
        if events(action="session.renewed"):
            raise ConnectionError("the key service is sealed")
        return keys

    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"subject": read_keys})
    assert browser.sign_in(op).status == 302
    browser.headers["Accept"] = "text/html"
    callback = op.authorize(to_provider(browser, "/strong/").location, "amina")
    with logout_during_exchange(op, lambda: {"sid": op.last_grant.sid}):
        assert browser.get(callback).status >= 500
    assert not OIDCSession.objects.live().exists()
    assert browser.user() == ""
    assert op.active_tokens == []
