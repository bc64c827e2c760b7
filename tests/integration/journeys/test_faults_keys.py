"""A portal in a process of its own whose keys are away at its start, go away, are an old list, and come back."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc._internal import clock
from django_phi_oidc.audit import outbox
from django_phi_oidc.crypto import keyring
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.sessions.tasks import sweep_revocations
from django_phi_oidc.sessions.token_revocation import reset_backoff
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange
from tests.support.http_browser import Browser
from tests.support.key_service import KeyService
from tests.support.portal_fixtures import EVERYTHING, client, declaration, events
from tests.support.portal_process import portal_process

pytestmark = [pytest.mark.django_db(**EVERYTHING), pytest.mark.postgresql]
RINGS = ("encryption", "subject", "audit_mac")
KEYS_UNAVAILABLE = '{"database": "working", "trail": "working", "keys": "unavailable"}'
UNAVAILABLE = "Signing in is not possible at the moment"


@dataclass
class Scene:
    """A portal that reads each key list from a service that the test controls."""

    op: DemoProvider
    base: str
    log: Path
    service: KeyService
    keys: dict[str, list[str]]

    def stop(self, ring: str) -> None:
        self.service.set_keys(ring, None)

    def give_other_keys(self, ring: str) -> None:
        self.service.set_keys(ring, [keyring.generate_key()])

    def return_keys(self, ring: str) -> None:
        self.service.set_keys(ring, self.keys[ring])

    def browser(self) -> Browser:
        return Browser(self.base)

    def log_names(self, ring: str) -> bool:
        return f"PHI_OIDC['KEYS'][{ring!r}]: the callable failed. (SealedError)" in self.log.read_text()


@pytest.fixture
def scene(op: DemoProvider, tmp_path: Path, settings: Any) -> Iterator[Scene]:
    """Nothing has run in the portal yet."""
    keys = {ring: list(settings.PHI_OIDC["KEYS"][ring]) for ring in RINGS}
    folder, log = tmp_path / "keys", tmp_path / "portal.log"
    folder.mkdir()
    service = KeyService(folder)
    for ring in RINGS:
        service.set_keys(ring, keys[ring])
    phi_oidc = {"PROVIDERS": {"default": declaration(op)}}
    with portal_process(phi_oidc, TEST_KEY_SERVICE=str(folder), TEST_LOG_FILE=str(log)) as base:
        op.register_client(client(base))
        yield Scene(op, base, log, service, keys)


def during_token_request(op: DemoProvider, action: Callable[[], Any]) -> None:
    def hook(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "token":
            op.intercept = None
            action()

    op.intercept = hook


@pytest.mark.parametrize("ring", RINGS)
def test_portal_without_keys_at_its_start_signs_in_when_they_are_back(ring: str, scene: Scene) -> None:
    scene.stop(ring)
    browser = scene.browser()
    page = browser.start_sign_in()
    if ring != "encryption":
        assert page.status == 302, "only the callback needs them"
        page = browser.get(scene.op.authorize(page.location, "amina"))
    assert page.status == 503
    assert UNAVAILABLE in page.body
    assert browser.user() == ""
    assert scene.op.active_tokens == []
    health = browser.get("/oidc/health/")
    assert (health.status, health.body) == (500, KEYS_UNAVAILABLE)
    assert scene.log_names(ring)
    scene.return_keys(ring)
    assert browser.get("/oidc/health/").status == 200
    assert browser.sign_in(scene.op).status == 302
    assert browser.user() != ""


@pytest.mark.parametrize("ring", RINGS)
def test_keys_that_go_away_during_a_sign_in_leave_no_active_token_and_end_no_session(ring: str, scene: Scene) -> None:
    signed_in = scene.browser()
    signed_in.sign_in(scene.op)
    browser = scene.browser()
    callback = browser.get_callback_url(scene.op)
    during_token_request(scene.op, lambda: scene.stop(ring))
    page = browser.get(callback)
    assert page.status == 503
    assert UNAVAILABLE in page.body
    assert browser.user() == ""
    assert signed_in.user() != ""
    assert OIDCSession.objects.filter(ended_at=None).count() == 1
    assert len(scene.op.active_tokens) == 2, "those of the first sign-in"
    assert "A sign-in was refused: reason=key_missing" in scene.log.read_text()
    scene.return_keys(ring)
    assert browser.sign_in(scene.op).status == 302
    assert browser.user() != ""


@pytest.mark.parametrize("ring", RINGS)
def test_logout_with_any_keys_away_ends_the_session_and_its_tokens_when_they_are_back(ring: str, scene: Scene) -> None:
    browser = scene.browser()
    browser.sign_in(scene.op)
    scene.stop(ring)
    assert browser.post("/oidc/logout/").status in (200, 302)
    assert browser.user() == ""
    assert not OIDCSession.objects.filter(ended_at=None).exists()
    scene.return_keys(ring)
    reset_backoff(now=clock.now())
    sweep_revocations()
    outbox.flush()
    assert scene.op.active_tokens == []
    assert [event.reason for event in events(action="session.ended")] == ["logout"]


EXPECTED_WITH_OTHER_KEYS = {
    # The page says to start again: the pending sign-in was encrypted elsewhere.
    "encryption": (403, "state_unknown"),
    "subject": (403, "subject_key_missing"),
    "audit_mac": (302, ""),
}


@pytest.mark.parametrize("ring", RINGS)
def test_sign_in_with_other_keys_than_before_keeps_what_the_former_keys_protect(ring: str, scene: Scene) -> None:
    signed_in = scene.browser()
    signed_in.sign_in(scene.op)
    browser = scene.browser()
    callback = browser.get_callback_url(scene.op)
    scene.give_other_keys(ring)
    status, reason = EXPECTED_WITH_OTHER_KEYS[ring]
    assert browser.get(callback).status == status
    assert [event.reason for event in events(action="login.refused")] == [reason] * bool(reason)
    assert signed_in.user() != ""
    scene.return_keys(ring)
    assert signed_in.get("/birthdate/").body == "1984-03-09"
    if status != 302:
        assert browser.sign_in(scene.op).status == 302
    assert browser.user() == signed_in.user() != ""
