"""An audit database that hangs and is not down: permits, logout and health end in time, and nothing is lost."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from django_phi_oidc.audit import outbox
from django_phi_oidc.audit.models import AuditOutbox
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.integration.journeys.tcp_relay import Relay, relay_to
from tests.support.http_browser import Browser, PortalResponse
from tests.support.portal_fixtures import EVERYTHING, client, declaration, events
from tests.support.portal_process import portal_process
from tests.support.postgresql import given_url

pytestmark = [pytest.mark.django_db(**EVERYTHING), pytest.mark.postgresql]
PERMIT_SECONDS, LOGOUT_SECONDS, HEALTH_SECONDS = 5.0, 1.0, 2.0
WORKING = '{"database": "working", "trail": "working", "keys": "working"}'


@dataclass
class Portal:
    """A portal in a process of its own, which reaches its audit database by a relay."""

    url: str
    relay: Relay

    def signed_in_browser(self, op: DemoProvider) -> Browser:
        browser = Browser(self.url)
        assert browser.sign_in(op).status == 302
        return browser


@pytest.fixture(params=[{}, {"TEST_THREADS": "1"}], ids=["new connections hang", "the open connection hangs"])
def hanging_portal(request: pytest.FixtureRequest, op: DemoProvider) -> Iterator[Portal]:
    """Connections are closed after each request, or one thread keeps them open."""
    phi_oidc = {"PROVIDERS": {"default": declaration(op)}}
    with (
        relay_to(given_url(os.environ)) as relay,
        portal_process(phi_oidc, TEST_AUDIT_PORT=str(relay.port), **request.param) as base,
    ):
        op.register_client(client(base))
        yield Portal(base, relay)


def timed(action: object, *arguments: object) -> tuple[PortalResponse, float]:
    started_at = time.monotonic()
    page = action(*arguments)  # type: ignore[operator]
    return page, time.monotonic() - started_at


def test_d6_sign_in_is_refused_within_five_seconds(op: DemoProvider, hanging_portal: Portal) -> None:
    hanging_portal.signed_in_browser(op)
    browser = Browser(hanging_portal.url)
    callback = browser.get_callback_url(op)
    with hanging_portal.relay.hangs():
        page, seconds = timed(browser.get, callback)
    assert page.status == 503
    assert seconds < PERMIT_SECONDS
    assert browser.user() == ""
    assert OIDCSession.objects.filter(ended_at=None).count() == 1
    outbox.flush()
    assert [event.reason for event in events(action="session.ended")] == ["audit_unavailable"]
    assert hanging_portal.signed_in_browser(op).user() != ""


def test_d6_logout_ends_within_a_second_and_its_events_are_kept(op: DemoProvider, hanging_portal: Portal) -> None:
    browser = hanging_portal.signed_in_browser(op)
    with hanging_portal.relay.hangs():
        page, seconds = timed(browser.post, "/oidc/logout/")
    assert page.status == 302
    assert seconds < LOGOUT_SECONDS
    assert not OIDCSession.objects.filter(ended_at=None).exists()
    assert AuditOutbox.objects.exists()
    outbox.flush()
    assert [event.reason for event in events(action="session.ended")] == ["logout"]
    assert not AuditOutbox.objects.exists()


def test_d6_health_reports_it_within_two_seconds(op: DemoProvider, hanging_portal: Portal) -> None:
    browser = Browser(hanging_portal.url)
    assert browser.get("/oidc/health/").body == WORKING
    with hanging_portal.relay.hangs():
        page, seconds = timed(browser.get, "/oidc/health/")
    assert (page.status, page.body) == (500, WORKING.replace('"trail": "working"', '"trail": "unavailable"'))
    assert seconds < HEALTH_SECONDS
    assert browser.get("/oidc/health/").body == WORKING
