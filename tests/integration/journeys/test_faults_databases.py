"""A portal in a process of its own whose databases are away at its start, go away, hang and come back."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest
from django.contrib.sessions.models import Session

from django_phi_oidc.audit import outbox
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.integration.journeys.tcp_relay import Relay, relay_to
from tests.support.http_browser import Browser, PortalResponse
from tests.support.portal_fixtures import EVERYTHING, client, declaration, events
from tests.support.portal_process import portal_process
from tests.support.postgresql import given_url

pytestmark = [pytest.mark.django_db(**EVERYTHING), pytest.mark.postgresql]
WORKING = '{"database": "working", "trail": "working", "keys": "working"}'
MAIN_UNAVAILABLE = WORKING.replace('"database": "working"', '"database": "unavailable"')
AUDIT_UNAVAILABLE = WORKING.replace('"trail": "working"', '"trail": "unavailable"')


@dataclass
class Scene:
    """A portal that reaches each of its databases by a relay. The test chooses when it starts."""

    op: DemoProvider
    main: Relay
    audit: Relay
    stack: ExitStack
    base: str = ""

    def start_portal(self) -> None:
        ports = {"TEST_MAIN_PORT": str(self.main.port), "TEST_AUDIT_PORT": str(self.audit.port)}
        phi_oidc = {"PROVIDERS": {"default": declaration(self.op)}}
        self.base = self.stack.enter_context(portal_process(phi_oidc, **ports))
        self.op.register_client(client(self.base))

    def browser(self) -> Browser:
        return Browser(self.base)

    def health(self) -> tuple[int, str]:
        page = self.browser().get("/oidc/health/")
        return page.status, page.body


@pytest.fixture
def scene(op: DemoProvider) -> Iterator[Scene]:
    url = given_url(os.environ)
    with relay_to(url) as main, relay_to(url) as audit, ExitStack() as stack:
        yield Scene(op, main, audit, stack)


@pytest.fixture
def started(scene: Scene) -> Scene:
    scene.start_portal()
    return scene


@contextmanager
def away(relay: Relay) -> Iterator[None]:
    relay.go_down()
    try:
        yield
    finally:
        relay.come_back()


def test_portal_that_starts_without_the_main_database_works_when_it_is_back(scene: Scene) -> None:
    with away(scene.main):
        scene.start_portal()
        assert scene.browser().get("/portal/home/").status == 302, "a page that needs no database"
        assert scene.browser().start_sign_in().status == 302, "an authorization request needs none either"
        assert scene.health() == (500, MAIN_UNAVAILABLE)
    assert scene.health() == (200, WORKING)
    browser = scene.browser()
    assert browser.sign_in(scene.op).status == 302
    assert browser.user() != ""


def test_user_is_still_signed_in_when_the_main_database_is_back(started: Scene) -> None:
    browser, pending = started.browser(), started.browser()
    browser.sign_in(started.op)
    user, claims = browser.user(), StoredClaim.objects.count()
    callback = pending.get_callback_url(started.op)
    with away(started.main):
        assert browser.get("/portal/home/").status == 500
        assert browser.post("/oidc/logout/").status == 503
        assert pending.get(callback).status == 503
        assert started.health() == (500, MAIN_UNAVAILABLE)
    assert [request.path for request in started.op.requests].count("/token") == 1, "the second code is not spent"
    assert len(started.op.active_tokens) == 2
    assert (Session.objects.count(), StoredClaim.objects.count()) == (1, claims)
    assert browser.user() == user
    assert pending.get(callback).status == 302, "a reload completes the sign-in"
    assert pending.user() == user
    assert browser.post("/oidc/logout/").status == 302
    assert browser.user() == ""
    assert [event.reason for event in events(action="session.ended")] == ["logout"]


def test_main_database_that_hangs_delays_requests_and_loses_none(started: Scene) -> None:
    browser = started.browser()
    browser.sign_in(started.op)
    pages: list[PortalResponse] = []
    with started.main.hangs():
        waiting = threading.Thread(target=lambda: pages.append(browser.post("/oidc/logout/")))
        waiting.start()
        started_at = time.monotonic()
        assert started.health() == (500, MAIN_UNAVAILABLE)
        assert time.monotonic() - started_at < 2
        assert pages == []
    waiting.join(30)
    assert [page.status for page in pages] == [302]
    assert browser.user() == ""
    assert [event.reason for event in events(action="session.ended")] == ["logout"]
    assert started.op.active_tokens == []


def test_portal_that_starts_without_the_audit_database_works_when_it_is_back(scene: Scene) -> None:
    with away(scene.audit):
        scene.start_portal()
        browser = scene.browser()
        page = browser.get(browser.get_callback_url(scene.op))
        assert (page.status, browser.user()) == (503, "")
        assert "Signing in is not possible at the moment" in page.body
        assert scene.op.active_tokens == []
        assert scene.health() == (500, AUDIT_UNAVAILABLE)
    browser = scene.browser()
    assert browser.sign_in(scene.op).status == 302
    assert browser.user() != ""
    outbox.flush()
    assert [event.reason for event in events(action="session.ended")] == ["audit_unavailable"]


def test_sign_in_with_a_slow_audit_database_is_accepted(started: Scene) -> None:
    started.browser().sign_in(started.op)
    browser = started.browser()
    callback = browser.get_callback_url(started.op)
    pages: list[PortalResponse] = []
    with started.audit.hangs():
        waiting = threading.Thread(target=lambda: pages.append(browser.get(callback)))
        waiting.start()
        time.sleep(1.5)
        assert pages == []
    waiting.join(30)
    assert [page.status for page in pages] == [302]
    assert browser.user() != ""
    assert len(events(action="login.succeeded")) == 2
    assert events(action="login.refused") == []
