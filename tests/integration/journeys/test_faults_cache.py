"""Django sessions in a Redis cache that is away at the start, goes away, hangs, forgets everything and comes back."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from redis import Redis

from django_phi_oidc._internal import clock
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.integration.journeys.installation import Installation
from tests.integration.journeys.logout import statuses
from tests.integration.journeys.tcp_relay import Relay, relay_to
from tests.support.http_browser import PortalResponse
from tests.support.portal_fixtures import EVERYTHING, client, declaration, events

pytestmark = [pytest.mark.django_db(**EVERYTHING), pytest.mark.postgresql, pytest.mark.redis]
IDLE = timedelta(minutes=16)


@dataclass
class Scene:
    """A project whose Django sessions are in the cache; each session is checked at each request."""

    op: DemoProvider
    cache: Relay
    installation: Installation
    redis_url: str

    @contextmanager
    def cache_away(self) -> Iterator[None]:
        self.cache.go_down()
        try:
            yield
        finally:
            self.cache.come_back()

    def forget_everything(self) -> None:
        """Delete the values of this project, as a restart of a cache without persistence does."""
        with Redis.from_url(self.redis_url) as server:
            for key in server.scan_iter(f"{self.installation.queue}:*"):
                server.delete(key)


@pytest.fixture
def engine() -> str:
    return "cache"


@pytest.fixture
def scene(op: DemoProvider, tmp_path: Path, redis_url: str, engine: str) -> Iterator[Scene]:
    with relay_to(redis_url) as broker, relay_to(redis_url) as cache:
        phi_oidc = {"PROVIDERS": {"default": declaration(op)}, "SESSIONS": {"recheck": 0}}
        installation = Installation(tmp_path, phi_oidc, broker, engine=engine, redis=cache.url)
        yield Scene(op, cache, installation, redis_url)


def test_portal_that_starts_without_the_cache_signs_in_when_it_is_back(scene: Scene) -> None:
    scene.cache.go_down()
    with scene.installation.portal() as base:
        scene.op.register_client(client(base))
        browser = scene.installation.browser(base)
        assert browser.get(browser.get_callback_url(scene.op)).status == 500
        assert not OIDCSession.objects.filter(ended_at=None).exists()
        assert scene.op.tokens != []
        assert scene.op.active_tokens == []
        assert [event.reason for event in events(action="login.refused")] == ["internal_error"]
        scene.cache.come_back()
        assert browser.sign_in(scene.op).status == 302
        assert browser.user() != ""
    assert scene.installation.leaks(scene.op) == []


def test_cache_that_is_away_ends_no_session_of_the_engine_cache(scene: Scene) -> None:
    """Django takes an error of the cache for an empty session, and deletes the cookie of who sends a request then."""
    with scene.installation.portal() as base, scene.installation.worker():
        scene.op.register_client(client(base))
        browser, other = scene.installation.browser(base), scene.installation.browser(base)
        for visitor in (browser, other):
            visitor.sign_in(scene.op)
        user = other.user()
        with scene.cache_away():
            assert browser.get("/portal/home/").location.startswith("/oidc/authenticate/")
            assert not scene.installation.run("phi_oidc.check_sessions"), "nothing is known about the Django sessions"
            assert OIDCSession.objects.filter(ended_at=None).count() == 2
            assert not PendingRevocation.objects.exists()
        assert other.user() == user
        assert browser.sign_in(scene.op).status == 302
        assert browser.user() == user
        assert scene.installation.run("phi_oidc.check_sessions")
        assert OIDCSession.objects.filter(ended_at=None).count() == 3
        scene.installation.set_clock(clock.now() + IDLE)
        assert scene.installation.run("phi_oidc.end_overdue")
        assert scene.installation.run()
        assert scene.op.active_tokens == []
        assert scene.installation.cached() == {}
    assert scene.installation.leaks(scene.op) == []


@pytest.mark.parametrize("engine", ["cached_db"])
def test_user_of_the_engine_cached_db_is_still_signed_in_when_the_cache_is_back(scene: Scene) -> None:
    with scene.installation.portal() as base, scene.installation.worker():
        scene.op.register_client(client(base))
        browser = scene.installation.browser(base)
        browser.sign_in(scene.op)
        user = browser.user()
        with scene.cache_away():
            assert browser.get("/portal/home/").status == 500
            assert scene.installation.run("phi_oidc.check_sessions"), "it reads the database"
            assert OIDCSession.objects.get().ended_at is None
        assert browser.user() == user
        assert len(scene.op.active_tokens) == 2
    assert scene.installation.leaks(scene.op) == []


def test_session_that_ends_while_the_cache_is_away_does_not_come_back_with_it(scene: Scene) -> None:
    with scene.installation.portal() as base, scene.installation.worker():
        scene.op.register_client(client(base))
        browser = scene.installation.browser(base)
        browser.sign_in(scene.op)
        with scene.cache_away():
            scene.installation.set_clock(clock.now() + IDLE)
            assert scene.installation.run("phi_oidc.end_overdue")
            assert OIDCSession.objects.get().end_reason == "idle_timeout"
            assert scene.installation.run()
            assert statuses() == {RevocationStatus.DONE}
            assert scene.op.active_tokens == []
        assert len(scene.installation.cached()) == 1, "the copy could not be deleted"
        assert browser.user() == ""
        assert scene.installation.cached() == {}
    assert scene.installation.leaks(scene.op) == []


def test_sessions_that_the_cache_has_forgotten_end_and_their_tokens_are_revoked(scene: Scene) -> None:
    with scene.installation.portal() as base, scene.installation.worker():
        scene.op.register_client(client(base))
        browser = scene.installation.browser(base)
        browser.sign_in(scene.op)
        scene.forget_everything()
        assert browser.user() == ""
        assert scene.installation.run("phi_oidc.check_sessions")
        assert OIDCSession.objects.get().end_reason == "session_lost"
        assert scene.installation.run()
        assert scene.op.active_tokens == []
        assert browser.sign_in(scene.op).status == 302
    assert scene.installation.leaks(scene.op) == []


def test_cache_that_hangs_delays_requests_and_ends_no_session(scene: Scene) -> None:
    with scene.installation.portal() as base:
        scene.op.register_client(client(base))
        browser = scene.installation.browser(base)
        browser.sign_in(scene.op)
        pages: list[PortalResponse] = []
        with scene.cache.hangs():
            waiting = threading.Thread(target=lambda: pages.append(browser.get("/portal/home/")))
            waiting.start()
            time.sleep(1)
            assert pages == []
            assert scene.installation.browser(base).get("/oidc/health/").status == 200
        waiting.join(30)
        assert [page.status for page in pages] == [200]
        assert browser.user() != ""
    assert scene.installation.leaks(scene.op) == []
