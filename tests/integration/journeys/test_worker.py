"""Periodic tasks in a real worker with beat and a real broker. Messages contain only ids."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.sessions.models import Session

from django_phi_oidc.audit.events import Action, NewEvent, Origin
from django_phi_oidc.audit.models import AuditOutbox
from django_phi_oidc.audit.recorder import record_many
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.contrib.monitoring.models import SecurityAlert
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.integration.journeys.installation import Installation
from tests.integration.journeys.logout import statuses
from tests.integration.journeys.tcp_relay import relay_to
from tests.integration.journeys.test_transactions import audit_database_away
from tests.support.audit_log import NOW, PEM
from tests.support.celery_worker import eventually, worker
from tests.support.http_browser import Browser
from tests.support.portal_fixtures import EVERYTHING, client, declaration, events

pytestmark = [pytest.mark.django_db(**EVERYTHING), pytest.mark.postgresql]


@pytest.mark.parametrize(
    "broker",
    [
        pytest.param("redis_url", marks=pytest.mark.redis),
        pytest.param("rabbitmq_url", marks=pytest.mark.rabbitmq),
    ],
)
def test_worker_revokes_tokens_scrubs_claims_and_drains_the_outbox(
    broker: str, request: pytest.FixtureRequest, op: DemoProvider, settings: Any, browser: Browser, tmp_path: Path
) -> None:
    claims = settings.PHI_OIDC["CLAIMS"]
    short = {**claims, "address": {**claims["address"], "retention": timedelta(seconds=1)}}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": short}
    browser.sign_in(op)
    tokens = [token.value for token in op.active_tokens]
    op.stop()
    with audit_database_away():
        assert browser.post("/oidc/logout/").status == 200, "the page that leads to the provider"
    op.start()
    assert browser.user() == ""
    assert all(op.is_token_active(token) for token in tokens), "the provider was unreachable"
    assert PendingRevocation.objects.filter(status=RevocationStatus.PENDING).count() == 2
    assert AuditOutbox.objects.count() > 0
    phi_oidc = {"PROVIDERS": {"default": declaration(op)}}
    with worker(request.getfixturevalue(broker), phi_oidc, tmp_path):
        assert eventually(lambda: not PendingRevocation.objects.filter(status=RevocationStatus.PENDING).exists())
        assert eventually(lambda: not StoredClaim.objects.exists())
        assert eventually(lambda: not AuditOutbox.objects.exists())
    assert not any(op.is_token_active(token) for token in tokens)
    assert set(PendingRevocation.objects.values_list("status", "token")) == {(RevocationStatus.DONE, None)}
    assert len(events(action="token.revoked")) == 2
    assert [event.reason for event in events(action="session.ended")] == ["logout"]
    log = (tmp_path / "worker.log").read_text()
    assert "phi_oidc.sweep_revocations" in log
    assert not [token for token in tokens if token in log]


LIMITS = {"idle_timeout": timedelta(minutes=15), "absolute_timeout": timedelta(hours=8)}


@pytest.mark.redis
@pytest.mark.parametrize(("reason", "limit"), LIMITS.items(), ids=LIMITS)
def test_abandoned_session_ends_within_a_minute_after_its_limit(
    reason: str, limit: timedelta, op: DemoProvider, tmp_path: Path, redis_url: str
) -> None:
    with relay_to(redis_url) as broker:
        installation = Installation(tmp_path, {"PROVIDERS": {"default": declaration(op)}}, broker)
        with installation.portal() as base, installation.worker(beat=True):
            op.register_client(client(base))
            assert installation.browser(base).sign_in(op).status == 302
            session = OIDCSession.objects.get()
            if reason == "absolute_timeout":
                # The user was active all the time.
                OIDCSession.objects.update(last_seen_at=session.started_at + limit)
            assert (len(op.active_tokens), Session.objects.count()) == (2, 1)
            assert StoredClaim.objects.filter(session=session.pk).exists()

            installation.set_clock(session.started_at + limit - timedelta(seconds=1))
            before = count_runs(installation)
            assert eventually(lambda: count_runs(installation) > before + 1), "at least one run started at that time"
            assert not OIDCSession.objects.exclude(ended_at=None).exists()
            assert (len(op.active_tokens), Session.objects.count()) == (2, 1)

            installation.set_clock(session.started_at + limit + timedelta(minutes=1))
            assert eventually(lambda: OIDCSession.objects.filter(end_reason=reason).exists())
            assert eventually(lambda: statuses() == {RevocationStatus.DONE})
            assert eventually(lambda: not AuditOutbox.objects.exists())
        assert op.tokens
        assert not op.active_tokens
        assert not Session.objects.exists()
        assert installation.cached() == {}
        assert not StoredClaim.objects.filter(session=session.pk).exists()
        by_action = {event.action: event for event in events(session=str(session.pk)) if event.actor == ""}
        assert set(by_action) == {"session.ended", "claim.scrubbed", "token.revoked"}
        assert by_action["session.ended"].reason == reason
        assert len(events(action="token.revoked")) == 2
        assert installation.leaks(op) == []


def count_runs(installation: Installation) -> int:
    """Return how often the task that ends abandoned sessions has run."""
    return len(re.findall(r"Task phi_oidc\.end_overdue\[[^]]+\] succeeded", installation.logs()))


@pytest.mark.redis
def test_worker_seals_events_and_sends_security_alerts(redis_url: str, tmp_path: Path) -> None:
    refused = NewEvent(
        action=Action.LOGIN_REFUSED,
        origin=Origin(client_ip="192.0.2.77"),
        now=NOW,
        outcome="failure",
        provider="default",
        reason="signature_invalid",
    )
    record_many([refused] * 3)
    with worker(redis_url, {"KEYS": {"audit_signing": PEM}}, tmp_path):
        assert eventually(lambda: SecurityAlert.objects.exclude(notified_at=None).filter(kind="token_forged").exists())
        assert eventually(lambda: len(events(action="alert.raised", resource__startswith="SecurityAlert/")) == 1)
    alert = SecurityAlert.objects.get(kind="token_forged")
    assert (alert.key, alert.count) == ("192.0.2.77", 3)
    log = (tmp_path / "worker.log").read_text()
    assert f"Security alert {alert.pk}: token_forged, seen 3 times." in log
    assert "192.0.2.77" not in log
