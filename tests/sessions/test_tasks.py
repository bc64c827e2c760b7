import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import current_app
from django.db import transaction
from kombu import pools

from django_phi_oidc import clock
from django_phi_oidc.oidc.token import ReceivedToken
from django_phi_oidc.sessions.models import PendingRevocation
from django_phi_oidc.sessions.revoking import queue_revocations
from django_phi_oidc.sessions.tasks import revoke, revoke_soon, sweep_revocations
from tests.sessions.conftest import ScriptedOP, answering, declare

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])

TOKENS = (
    ReceivedToken(hint="refresh_token", value="refresh-canary"),
    ReceivedToken(hint="access_token", value="access-canary"),
)
FOLDERS = ("data_folder_in", "data_folder_out", "control_folder")
BROKERS_AWAY = {
    "amqp": ("amqp://guest@127.0.0.1:1//", {}),
    "redis": ("redis://127.0.0.1:1/0", {}),
    "filesystem": ("filesystem://", dict.fromkeys(FOLDERS, "/dev/null/queue")),
}


@pytest.fixture
def messages(tmp_path: Path) -> Iterator[Path]:
    """Yield the directory of a filesystem broker, where each message is a file."""
    yield from use_broker("filesystem://", dict.fromkeys(FOLDERS, str(tmp_path)), tmp_path)


def use_broker(url: str, options: dict[str, Any], value: Any = None) -> Iterator[Any]:
    app = current_app._get_current_object()
    before = app.conf.broker_write_url, app.conf.broker_transport_options
    close_pools(app)
    app.conf.broker_write_url, app.conf.broker_transport_options = url, options
    yield value
    close_pools(app)
    app.conf.broker_write_url, app.conf.broker_transport_options = before


def close_pools(app: Any) -> None:
    pools.reset()
    app._pool = None
    app.amqp._producer_pool = None


def queue() -> tuple[uuid.UUID, ...]:
    return queue_revocations(TOKENS, provider="default", now=clock.now())


def statuses() -> list[str]:
    return sorted(PendingRevocation.objects.values_list("status", flat=True))


def test_revoke_soon_tries_at_once_the_refresh_token_first(op: ScriptedOP, messages: Path) -> None:
    revoke_soon(queue())
    assert [asked["token"] for asked in op.asked] == ["refresh-canary", "access-canary"]
    assert statuses() == ["done", "done"]
    assert list(messages.glob("*.msg")) == []


def test_revoke_soon_inside_a_transaction_waits_for_its_commit(op: ScriptedOP) -> None:
    with transaction.atomic():
        revoke_soon(queue())
        assert op.asked == []
    assert len(op.asked) == 2


def test_revoke_soon_inside_a_transaction_that_rolls_back_asks_nobody(op: ScriptedOP) -> None:
    with transaction.atomic():
        revoke_soon(queue())
        transaction.set_rollback(True)
    assert op.asked == []


def test_revoke_soon_of_nothing_does_nothing(op: ScriptedOP) -> None:
    revoke_soon(())
    assert op.asked == []


def test_revoke_soon_with_an_op_that_hangs_keeps_to_its_time_and_wakes_a_worker(op: ScriptedOP, messages: Path) -> None:
    op.answer = op.hang
    pks = queue()
    started = time.monotonic()
    revoke_soon(pks)
    assert time.monotonic() - started < 3
    assert statuses() == ["pending", "pending"]
    (message,) = messages.glob("*.msg")
    text = message.read_text()
    assert "phi_oidc.revoke" in text
    assert "canary" not in text


@pytest.mark.parametrize(("url", "options"), BROKERS_AWAY.values(), ids=BROKERS_AWAY)
def test_revoke_soon_with_op_and_broker_away_raises_nothing_and_keeps_its_time(
    op: ScriptedOP, url: str, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    op.answer = op.hang
    pks = queue()
    for _ in use_broker(url, options):
        started = time.monotonic()
        revoke_soon(pks)
        assert time.monotonic() - started < 3
    assert "wait for the sweep" in caplog.text
    assert "canary" not in caplog.text
    assert statuses() == ["pending", "pending"]


def test_revoke_task_revokes_what_is_due(op: ScriptedOP) -> None:
    refresh, access = queue()
    revoke(str(access))
    assert [asked["token"] for asked in op.asked] == ["access-canary"]
    assert PendingRevocation.objects.get(pk=refresh).attempts == 0


def test_revoke_task_repeated_asks_once(op: ScriptedOP) -> None:
    refresh, _ = queue()
    revoke(str(refresh))
    revoke(str(refresh))
    assert len(op.asked) == 1


def test_revoke_task_of_what_is_not_due_asks_nobody(op: ScriptedOP) -> None:
    op.answer = answering(503, Retry_After="600")
    refresh, _ = queue()
    revoke(str(refresh))
    revoke(str(refresh))
    assert len(op.asked) == 1


def test_sweep_task_revokes_what_an_outage_left(settings: Any, op: ScriptedOP, unused_port: int) -> None:
    before = settings.PHI_OIDC
    declare(settings, ScriptedOP(port=unused_port))
    revoke_soon(queue())
    assert statuses() == ["pending", "pending"]
    settings.PHI_OIDC = before
    sweep_revocations()
    assert op.asked == [], "Not due yet."
    later = max(PendingRevocation.objects.values_list("due_at", flat=True))
    with clock.running(lambda: later):
        sweep_revocations()
    assert statuses() == ["done", "done"]
