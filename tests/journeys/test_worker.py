"""What a request could not do, a worker process does: on a real broker, with nothing but ids in its messages."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings

from django_phi_oidc import entropy
from django_phi_oidc.attack.op import DemoProvider
from django_phi_oidc.audit.models import AuditOutbox
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.sessions.models import PendingRevocation, RevocationStatus
from tests.databases import child_environment

from .browser import Browser
from .conftest import EVERYTHING, declaration, events
from .test_transactions import audit_database_away

pytestmark = pytest.mark.django_db(**EVERYTHING)
PATIENCE_SECONDS = 60.0


@contextmanager
def worker(broker: str, phi_oidc: dict[str, Any], folder: Path) -> Iterator[None]:
    """Run a worker with beat on the databases of the test."""
    environment = {
        **child_environment(os.environ, django_settings.DATABASES),
        "DJANGO_SETTINGS_MODULE": "tests.journeys.process_settings",
        "TEST_PHI_OIDC": json.dumps(phi_oidc),
        "TEST_BROKER_URL": broker,
        "TEST_QUEUE": f"test-{entropy.token_b64url(6)}",
        "TEST_BEAT_FILE": str(folder / "beat"),
    }
    command = [sys.executable, "-m", "celery", "-A", "tests.journeys.worker", "worker", "-B"]
    command += ["--pool", "solo", "--loglevel", "INFO"]
    with (folder / "worker.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=20)


def eventually(holds: Callable[[], bool]) -> bool:
    """Say whether it holds before patience ends."""
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        if time.monotonic() > ends_at:
            return False
        time.sleep(0.2)
    return True


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
