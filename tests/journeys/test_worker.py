"""What a request could not do, a worker process does: on a real broker, with nothing but ids in its messages."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc.attack.op import DemoProvider
from django_phi_oidc.audit.models import AuditOutbox
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.sessions.models import PendingRevocation, RevocationStatus

from .browser import Browser
from .conftest import EVERYTHING, declaration, events
from .test_transactions import audit_database_away
from .working import eventually, worker

pytestmark = pytest.mark.django_db(**EVERYTHING)


@pytest.mark.parametrize(
    "broker",
    [
        pytest.param("redis_url", marks=pytest.mark.redis),
        pytest.param("rabbitmq_url", marks=pytest.mark.rabbitmq),
    ],
)
def test_worker_revokes_scrubs_and_drains_what_was_left(
    broker: str, request: pytest.FixtureRequest, op: DemoProvider, settings: Any, browser: Browser, tmp_path: Path
) -> None:
    claims = settings.PHI_OIDC["CLAIMS"]
    short = {**claims, "address": {**claims["address"], "retention": timedelta(seconds=1)}}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": short}
    browser.sign_in(op)
    tokens = [token.value for token in op.live_tokens]
    op.stop()
    with audit_database_away():
        assert browser.post("/oidc/logout/").status == 302
    op.start()
    assert browser.user() == ""
    assert all(op.is_active(token) for token in tokens), "the provider was away"
    assert PendingRevocation.objects.filter(status=RevocationStatus.PENDING).count() == 2
    assert AuditOutbox.objects.count() > 0
    phi_oidc = {"PROVIDERS": {"default": declaration(op)}}
    with worker(request.getfixturevalue(broker), phi_oidc, tmp_path):
        assert eventually(lambda: not PendingRevocation.objects.filter(status=RevocationStatus.PENDING).exists())
        assert eventually(lambda: not StoredClaim.objects.exists())
        assert eventually(lambda: not AuditOutbox.objects.exists())
    assert not any(op.is_active(token) for token in tokens)
    assert set(PendingRevocation.objects.values_list("status", "token")) == {(RevocationStatus.DONE, None)}
    assert len(events(action="token.revoked")) == 2
    assert [event.reason for event in events(action="session.ended")] == ["logout"]
    log = (tmp_path / "worker.log").read_text()
    assert "phi_oidc.sweep_revocations" in log
    assert not [token for token in tokens if token in log]
