import re
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import current_app
from django.db import transaction
from kombu import pools

import django_phi_oidc
from django_phi_oidc._internal import clock
from django_phi_oidc.oidc.token import ReceivedToken
from django_phi_oidc.sessions.models import PendingRevocation
from django_phi_oidc.sessions.tasks import revoke_after_commit, sweep_revocations
from django_phi_oidc.sessions.token_revocation import queue_revocations
from tests.support.session_fixtures import ScriptedOP, declare

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])

TOKENS = (
    ReceivedToken(token_type_hint="refresh_token", value="refresh-canary"),
    ReceivedToken(token_type_hint="access_token", value="access-canary"),
)


@contextmanager
def broker_at(url: str) -> Iterator[None]:
    """Make this process publish its messages there."""
    app: Any = current_app._get_current_object()
    before = app.conf.broker_write_url
    close_pools(app)
    app.conf.broker_write_url = url
    try:
        yield
    finally:
        close_pools(app)
        app.conf.broker_write_url = before


def close_pools(app: Any) -> None:
    pools.reset()
    app._pool = None
    app.amqp._producer_pool = None


def queue() -> tuple[uuid.UUID, ...]:
    return queue_revocations(TOKENS, provider="default", now=clock.now())


def statuses() -> list[str]:
    return sorted(PendingRevocation.objects.values_list("status", flat=True))


def test_revoke_after_commit_revokes_the_refresh_token_first(op: ScriptedOP) -> None:
    revoke_after_commit(queue())
    assert [asked["token"] for asked in op.asked] == ["refresh-canary", "access-canary"]
    assert statuses() == ["done", "done"]


def test_revoke_after_commit_waits_for_the_commit(op: ScriptedOP) -> None:
    with transaction.atomic():
        revoke_after_commit(queue())
        assert op.asked == []
    assert len(op.asked) == 2


def test_revoke_after_commit_sends_nothing_after_a_rollback(op: ScriptedOP) -> None:
    with transaction.atomic():
        revoke_after_commit(queue())
        transaction.set_rollback(True)
    assert op.asked == []


def test_revoke_after_commit_without_revocations_does_nothing(op: ScriptedOP) -> None:
    revoke_after_commit(())
    assert op.asked == []


@pytest.mark.parametrize("scheme", ["amqp", "redis"])
def test_revoke_after_commit_keeps_its_budget_while_provider_and_broker_hang(op: ScriptedOP, scheme: str) -> None:
    op.answer = op.hang
    pks = queue()
    with socket.create_server(("127.0.0.1", 0)) as broker:
        broker.settimeout(0.1)
        with broker_at(f"{scheme}://127.0.0.1:{broker.getsockname()[1]}//"):
            started = time.monotonic()
            revoke_after_commit(pks)
            assert time.monotonic() - started < 3
            with pytest.raises(TimeoutError):
                broker.accept()
    assert statuses() == ["pending", "pending"]


def test_package_publishes_no_celery_message() -> None:
    sends = re.compile(r"\.(apply_async|delay|send_task)\(")
    assert sends.search("task.apply_async()")
    package = Path(django_phi_oidc.__file__).parent
    # The attack kit publishes one to test its search.
    assert [path.name for path in package.rglob("*.py") if sends.search(path.read_text())] == ["scan.py"]


def test_sweep_task_revokes_tokens_after_an_outage(settings: Any, op: ScriptedOP, unused_port: int) -> None:
    before = settings.PHI_OIDC
    declare(settings, ScriptedOP(port=unused_port))
    revoke_after_commit(queue())
    assert statuses() == ["pending", "pending"]
    settings.PHI_OIDC = before
    sweep_revocations()
    assert op.asked == [], "Not due yet."
    later = max(PendingRevocation.objects.values_list("due_at", flat=True))
    with clock.override_clock(lambda: later):
        sweep_revocations()
    assert statuses() == ["done", "done"]
