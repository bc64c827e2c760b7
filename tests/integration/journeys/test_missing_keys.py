"""A worker and a portal that cannot read their keys: nothing ends or is lost, and everything goes on when they can."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.models import AuditOutbox
from django_phi_oidc.audit.storage import has_valid_row_mac
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.integration.journeys.installation import Installation
from tests.integration.journeys.logout import alerts, last_due, sign_out, statuses
from tests.integration.journeys.tcp_relay import relay_to
from tests.support.http_browser import Browser
from tests.support.key_service import KeyService
from tests.support.portal_fixtures import EVERYTHING, client, declaration, events

pytestmark = [pytest.mark.django_db(**EVERYTHING), pytest.mark.postgresql, pytest.mark.redis]


@dataclass
class Scene:
    """One signed-in user at a portal that has its keys, and a session whose Django session is gone."""

    op: DemoProvider
    installation: Installation
    browser: Browser
    service: KeyService
    keys: dict[str, list[str]]

    def stop_keys(self) -> None:
        for ring in self.keys:
            self.service.set_keys(ring, None)

    def return_keys(self) -> None:
        for ring, keys in self.keys.items():
            self.service.set_keys(ring, keys)

    def live(self) -> int:
        return OIDCSession.objects.filter(ended_at=None).count()


@pytest.fixture
def scene(op: DemoProvider, tmp_path: Path, redis_url: str, settings: Any) -> Iterator[Scene]:
    """The worker reads its keys from the service; nothing has run in it yet.

    The Django sessions are in a cache, where only their decrypted keys find them.
    """
    rings = {ring: list(settings.PHI_OIDC["KEYS"][ring]) for ring in ("encryption", "audit_mac")}
    (tmp_path / "keys").mkdir()
    service = KeyService(tmp_path / "keys")
    with relay_to(redis_url) as broker:
        installation = Installation(tmp_path, {"PROVIDERS": {"default": declaration(op)}}, broker, engine="cache")
        with installation.portal() as base:
            op.register_client(client(base))
            assert installation.browser(base).sign_in(op).status == 302
            for path in (tmp_path / "cache").iterdir():
                path.unlink()
            browser = installation.browser(base)
            assert browser.sign_in(op).status == 302
            assert OIDCSession.objects.filter(ended_at=None).count() == 2
            assert len(op.active_tokens) == 4
            scene = Scene(op, installation, browser, service, rings)
            scene.return_keys()
            yield scene


def lose_all(scene: Scene) -> None:
    scene.stop_keys()


def have_the_old_list(scene: Scene) -> None:
    scene.service.set_keys("encryption", scene.keys["encryption"][1:])


def lose_them_in_the_middle(scene: Scene) -> None:
    # The first search for orphaned sessions reads them; the second one, five seconds later, can't.
    scene.service.set_keys("encryption", scene.keys["encryption"], calls=1)


LOSSES = {"at the start": lose_all, "in the middle": lose_them_in_the_middle, "old list": have_the_old_list}


@pytest.mark.parametrize("lose_keys", LOSSES.values(), ids=LOSSES)
def test_a1_worker_without_its_keys_ends_no_session(scene: Scene, lose_keys: Callable[[Scene], None]) -> None:
    claims = StoredClaim.objects.count()
    lose_keys(scene)
    with scene.installation.worker(TEST_KEY_SERVICE=str(scene.installation.folder / "keys")):
        for _ in range(2):
            assert scene.installation.run("phi_oidc.check_sessions")
        assert scene.live() == 2
        assert StoredClaim.objects.count() == claims
        assert len(scene.op.active_tokens) == 4
        assert not PendingRevocation.objects.exists()
        assert scene.browser.user() != ""
        scene.return_keys()
        assert "encryption_key_missing" in alerts()
        assert scene.installation.run("phi_oidc.check_sessions")
        assert OIDCSession.objects.get(end_reason="session_lost").ended_at is not None
        assert scene.live() == 1
        assert scene.installation.run("phi_oidc.sweep_revocations")
        assert statuses() == {RevocationStatus.DONE}
    assert len(scene.op.active_tokens) == 2
    assert alerts().count("encryption_key_missing") == 1
    assert scene.browser.user() != ""
    assert scene.installation.leaks(scene.op) == []


def test_a1_timeout_without_keys_keeps_the_tokens_for_the_sweep(scene: Scene) -> None:
    scene.stop_keys()
    with scene.installation.worker(TEST_KEY_SERVICE=str(scene.installation.folder / "keys")):
        scene.installation.set_clock(clock.now() + timedelta(minutes=16))
        assert scene.installation.run("phi_oidc.end_overdue")
        assert set(OIDCSession.objects.values_list("end_reason", flat=True)) == {"idle_timeout"}
        assert PendingRevocation.objects.filter(session_token__isnull=False).count() == 4
        assert scene.installation.run("phi_oidc.sweep_revocations")
        assert statuses() == {RevocationStatus.PENDING}
        assert len(scene.op.active_tokens) == 4
        # Longer than REVOCATION_GIVE_UP_AFTER.
        scene.installation.set_clock(clock.now() + timedelta(days=30))
        assert scene.installation.run("phi_oidc.sweep_revocations")
        assert statuses() == {RevocationStatus.PENDING}
        scene.return_keys()
        scene.installation.set_clock(last_due())
        assert scene.installation.run("phi_oidc.sweep_revocations")
        assert statuses() == {RevocationStatus.DONE}
        assert scene.installation.run("phi_oidc.drain_outbox")
    assert not scene.op.active_tokens
    assert not AuditOutbox.objects.exists()
    ended = events(action="session.ended")
    assert [event.reason for event in ended] == ["idle_timeout"] * 2
    assert all(has_valid_row_mac(event) for event in ended)
    assert scene.installation.leaks(scene.op) == []


def test_a2_logout_at_a_portal_without_keys_signs_out(scene: Scene) -> None:
    folder = str(scene.installation.folder / "keys")
    with scene.installation.portal("portal without keys", TEST_KEY_SERVICE=folder) as base:
        scene.op.register_client(client(base))
        OIDCSession.objects.all().delete()
        browser = scene.installation.browser(base)
        assert browser.sign_in(scene.op).status == 302
        tokens = [token.value for token in scene.op.active_tokens][-2:]
        scene.stop_keys()
        sign_out(browser)
        assert all(scene.op.is_token_active(token) for token in tokens)
        scene.return_keys()
    with scene.installation.worker(TEST_KEY_SERVICE=folder):
        scene.installation.set_clock(last_due())
        assert scene.installation.run("phi_oidc.sweep_revocations")
        assert scene.installation.run("phi_oidc.drain_outbox")
    assert not any(scene.op.is_token_active(token) for token in tokens)
    assert [event.reason for event in events(action="session.ended")] == ["row_deleted"] * 2 + ["logout"]
    assert len(events(action="logout.completed")) == 1
