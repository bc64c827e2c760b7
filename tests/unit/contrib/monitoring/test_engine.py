"""Rules over a real audit log: exactly once per event, with concurrent and killed workers."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connections

from django_phi_oidc.audit.events import NewEvent, Origin
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.recorder import record_many
from django_phi_oidc.contrib.monitoring.engine import (
    MAX_KEYS_PER_KIND,
    check_sealing_lag,
    evaluate_batch,
)
from django_phi_oidc.contrib.monitoring.models import AnomalyMemory, SecurityAlert, WatchCursor
from django_phi_oidc.contrib.monitoring.rules import get_builtin_rules
from django_phi_oidc.errors import AuditUnavailable
from tests.support import audit_fixtures as conftest
from tests.support.audit_log import NOW, events, seal_now, sealed
from tests.support.audit_tampering import CHECKPOINT, EVENT, LEAF, sql, without_triggers
from tests.support.databases import child_environment

audit_database_away = conftest.audit_database_away
pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
FORGED = {
    "action": "login.refused",
    "reason": "signature_invalid",
    "outcome": "failure",
    "detail": {"stage": "callback"},
    "subject": "",
    "purpose": "",
}


def evaluate_all(*, limit: int = 5_000, now: Any = NOW) -> int:
    total = 0
    while (count := evaluate_batch(get_builtin_rules(), now=now, limit=limit)) is not None:
        total += count
    return total


def alerts() -> dict[tuple[str, str], int]:
    return {(alert.kind, alert.key): alert.count for alert in SecurityAlert.objects.filter(acknowledged_at=None)}


def recorded_alerts() -> list[tuple[str, dict[str, Any]]]:
    raised = AuditEvent.objects.using("phi_audit").filter(action="alert.raised")
    return [(event.resource, json.loads(event.detail)) for event in raised]


def test_sealed_events_are_evaluated_once_with_one_alert_per_kind_and_key() -> None:
    ids = sealed(7, **FORGED)
    events(2, at=NOW + MINUTE, **FORGED)
    assert (evaluate_all(), evaluate_all()) == (7, 0), "unsealed events are not evaluated"
    alert = SecurityAlert.objects.get(kind="token_forged")
    assert (alert.key, alert.severity, alert.count, alert.event) == ("198.51.100.1", "critical", 7, ids[-1])
    assert (alert.first_seen, alert.last_seen) == (NOW, NOW + timedelta(milliseconds=6))
    assert alert.due_at == NOW
    seal_now(at=NOW + MINUTE)
    evaluate_all()
    assert SecurityAlert.objects.get(kind="token_forged").count == 9


def test_alert_event_has_no_identifiers_and_raises_no_alert() -> None:
    sealed(1, **FORGED)
    evaluate_all()
    pk = SecurityAlert.objects.get().pk
    assert recorded_alerts() == [(f"SecurityAlert/{pk}", {"count": 1, "rule": "token_forged"})]
    event = AuditEvent.objects.using("phi_audit").get(action="alert.raised")
    assert (event.actor, event.client_ip, event.subject, event.session) == ("", "", "", "")
    seal_now(at=NOW + MINUTE)
    assert evaluate_all() == 1
    assert (len(recorded_alerts()), SecurityAlert.objects.count()) == (1, 1)


def test_alert_from_an_alert_event_records_no_second_event() -> None:
    sealed(1, action="alert.raised", detail={"rule": "revocation_blocked"}, provider="default", subject="", purpose="")
    assert evaluate_all() == 1
    assert (alerts(), len(recorded_alerts())) == ({("revocation_blocked", "default"): 1}, 1)


def test_burst_across_two_runs_is_detected() -> None:
    burst = {**FORGED, "reason": "provider_error"}
    sealed(14, **burst)
    evaluate_all(limit=4)
    assert ("refusals_by_address", "198.51.100.1") not in alerts()
    assert "198.51" not in "".join(AnomalyMemory.objects.values_list("state", flat=True))
    sealed(1, at=NOW + MINUTE, **burst)
    evaluate_all()
    assert alerts()["refusals_by_address", "198.51.100.1"] == 1


@pytest.mark.parametrize("late", [timedelta(minutes=20), timedelta(days=365)])
def test_p4_late_event_does_not_hide_a_burst(late: timedelta) -> None:
    """The outbox or a wrong clock delays one event. It must not make the engine forget the others."""
    burst = {**FORGED, "reason": "provider_error"}
    sealed(14, at=NOW, **burst)
    evaluate_all()
    events(1, at=NOW - late, **burst)
    sealed(1, at=NOW + MINUTE, **{**burst, "origin": Origin(client_ip="203.0.113.1")})
    evaluate_all()
    assert ("refusals_by_address", "198.51.100.1") not in alerts()
    sealed(1, at=NOW + 2 * MINUTE, **burst)
    evaluate_all()
    assert alerts()["refusals_by_address", "198.51.100.1"] == 1


@pytest.mark.parametrize(
    ("addresses", "alert_count"), [(MAX_KEYS_PER_KIND, MAX_KEYS_PER_KIND), (MAX_KEYS_PER_KIND + 1, 1)]
)
def test_many_keys_become_one_alert(addresses: int, alert_count: int) -> None:
    record_many(
        [
            NewEvent(
                action="login.refused",
                origin=Origin(client_ip=f"192.0.2.{number}"),
                now=NOW + number * timedelta(milliseconds=1),
                reason="signature_invalid",
                outcome="failure",
            )
            for number in range(addresses)
        ]
    )
    seal_now()
    evaluate_all()
    forged = SecurityAlert.objects.filter(kind="token_forged")
    assert (forged.count(), sum(alert.count for alert in forged)) == (alert_count, addresses)
    assert forged.filter(key="").exists() == (alert_count == 1)


def test_expired_memories_are_deleted() -> None:
    sealed(3, **FORGED)
    evaluate_all()
    assert AnomalyMemory.objects.filter(kind="refusals_by_address").exists()
    sealed(1, at=NOW + HOUR)
    evaluate_all(now=NOW + HOUR)
    assert set(AnomalyMemory.objects.values_list("kind", flat=True)) == {"many_records", "record_of_interest"}


def test_concurrent_workers_evaluate_each_event_once() -> None:
    sealed(200, **FORGED)
    start, faults = threading.Barrier(2), list[BaseException]()

    def work() -> None:
        try:
            start.wait()
            # The second worker gets None although more leaves follow, and tries again.
            while WatchCursor.objects.filter(tree_size=200).first() is None:
                evaluate_batch(get_builtin_rules(), now=NOW, limit=5)
        except BaseException as fault:  # noqa: BLE001 -- asserted below
            faults.append(fault)
        finally:
            connections.close_all()

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert faults == []
    assert alerts()["token_forged", "198.51.100.1"] == 200
    assert WatchCursor.objects.get().version == 40


def test_worker_killed_at_any_point_has_written_all_or_nothing() -> None:
    sealed(90, **FORGED)
    connections.close_all()
    environment = child_environment(os.environ, settings.DATABASES)
    environment["PYTHONPATH"] = str(Path(__file__).parents[4])
    command = [sys.executable, Path(__file__).with_name("killed_engine_process.py")]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as engine:
        assert engine.stdin
        assert engine.stdout
        for number in range(1, 60):
            engine.stdin.write(f"{number}\n")
            exit_code = int(engine.stdout.readline())
            done = WatchCursor.objects.first()
            size = done.tree_size if done else 0
            assert alerts().get(("token_forged", "198.51.100.1"), 0) == size
            if exit_code == 0:
                break
            assert exit_code == -signal.SIGKILL
    assert number > 15
    assert 0 < size < 90, "some workers were killed before their COMMIT, and some after it"
    evaluate_all()
    assert alerts()["token_forged", "198.51.100.1"] == 90
    assert alerts()["refusals_by_address", "198.51.100.1"] == 76


def test_altered_event_raises_an_alert_and_is_not_evaluated() -> None:
    ids = sealed(5, **FORGED)
    with without_triggers():
        sql(f"UPDATE {EVENT} SET reason = 'provider_error' WHERE id = %s", ids[1])
        sql(f"DELETE FROM {EVENT} WHERE id = %s", ids[2])
        sql(f"DELETE FROM {LEAF} WHERE event_id = %s", ids[3])
    assert evaluate_all() == 5
    assert alerts() == {("trail_altered", ""): 3, ("token_forged", "198.51.100.1"): 2}
    assert SecurityAlert.objects.get(kind="trail_altered").event == ids[1]


@pytest.mark.parametrize("again", [4, 1], ids=["as long as it was", "shorter"])
def test_restored_log_raises_an_alert_and_new_events_are_evaluated(again: int) -> None:
    sealed(5, **FORGED)
    lost = sealed(4, at=NOW + MINUTE, **FORGED)
    evaluate_all()
    with without_triggers():
        sql(f"DELETE FROM {CHECKPOINT} WHERE tree_size > 5")
        sql(f"DELETE FROM {LEAF} WHERE leaf_index >= 5")
        for id_ in lost:
            sql(f"DELETE FROM {EVENT} WHERE id = %s", id_)
    sql("DELETE FROM phi_oidc_audit_auditunsealed")
    sealed(again, at=NOW + HOUR, **FORGED)
    evaluate_all(now=NOW + HOUR)
    assert alerts()["log_replaced", ""] == 1
    assert alerts()["token_forged", "198.51.100.1"] == 9 + again
    sealed(1, at=NOW + 2 * HOUR, **FORGED)
    evaluate_all(now=NOW + 2 * HOUR)
    assert alerts()["log_replaced", ""] == 1
    assert alerts()["token_forged", "198.51.100.1"] == 10 + again


def test_unsealed_events_raise_an_alert_once_an_hour() -> None:
    events(1)
    assert not check_sealing_lag(now=NOW + 5 * MINUTE)
    assert alerts() == {}
    for minutes in (6, 7, 65, 67):
        assert check_sealing_lag(now=NOW + minutes * MINUTE)
    assert alerts() == {("sealing_lag", ""): 2}
    assert recorded_alerts() == []
    seal_now(at=NOW + HOUR)
    assert not check_sealing_lag(now=NOW + 3 * HOUR)


def test_outage_of_the_audit_database_skips_no_event(audit_database_away: Callable[[], Any]) -> None:
    sealed(1, **FORGED)
    with audit_database_away(), pytest.raises(AuditUnavailable):
        evaluate_all()
    assert evaluate_all() == 1
