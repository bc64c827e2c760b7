"""Rules over a real audit log: exactly once per event, with concurrent and killed workers."""

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connections

from django_phi_oidc.audit.events import Event, NewEvent, Origin
from django_phi_oidc.audit.models import AuditEvent, SetAsideEvent
from django_phi_oidc.audit.recorder import record_many
from django_phi_oidc.audit.set_aside_events import list_set_aside_events, retry_events
from django_phi_oidc.contrib.monitoring.engine import (
    MAX_KEYS_PER_KIND,
    MAX_SET_ASIDE_PER_KIND,
    check_sealing_lag,
    evaluate_batch,
)
from django_phi_oidc.contrib.monitoring.models import AnomalyMemory, SecurityAlert, WatchCursor
from django_phi_oidc.contrib.monitoring.rules import Rule, ThresholdRule, get_builtin_rules
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


BURST = {**FORGED, "reason": "provider_error"}
BURST_ALERT = ("refusals_by_address", "198.51.100.1")
CLOCK_ERRORS = [
    pytest.param(timedelta(seconds=50), id="50 seconds ahead"),
    pytest.param(-6 * MINUTE, id="6 minutes behind"),
    pytest.param(-20 * MINUTE, id="20 minutes behind"),
    pytest.param(timedelta(days=-365), id="a year behind"),
]


@pytest.mark.parametrize("clock_error", CLOCK_ERRORS)
def test_p4_one_event_with_a_wrong_clock_does_not_hide_a_burst(clock_error: timedelta) -> None:
    sealed(1, at=NOW - 10 * MINUTE, **{**BURST, "origin": Origin(client_ip="203.0.113.1")})
    sealed(7, at=NOW, **BURST)
    events(1, at=NOW + MINUTE + clock_error, **BURST)
    sealed(8, at=NOW + MINUTE, **BURST)
    evaluate_all()
    assert alerts()[BURST_ALERT] >= 1


@pytest.mark.parametrize("clock_error", CLOCK_ERRORS)
def test_p4_process_with_a_wrong_clock_does_not_hide_its_part_of_a_burst(clock_error: timedelta) -> None:
    for second in range(15):
        at = NOW + second * timedelta(seconds=1)
        if second % 2:
            events(1, at=at + clock_error, **BURST)
        else:
            events(1, at=at, **BURST)
        seal_now(at=at)
    evaluate_all()
    assert alerts()[BURST_ALERT] == 1


def test_p4_refusals_of_hours_are_no_burst_after_the_sealer_was_stopped() -> None:
    for hour in range(15):
        events(1, at=NOW + hour * HOUR, **BURST)
    seal_now(at=NOW + 15 * HOUR)
    evaluate_all()
    assert BURST_ALERT not in alerts()


def test_p4_alert_has_the_time_of_the_seal_of_an_event_with_a_wrong_clock() -> None:
    events(1, at=NOW + timedelta(seconds=50), **FORGED)
    seal_now(at=NOW)
    events(1, at=NOW - HOUR, **FORGED)
    seal_now(at=NOW + HOUR)
    evaluate_all()
    alert = SecurityAlert.objects.get(kind="token_forged")
    assert (alert.first_seen, alert.last_seen, alert.count) == (NOW, NOW, 2)


def test_p4_memory_of_a_time_when_the_clock_of_the_sealer_was_wrong_hides_nothing() -> None:
    wrong = NOW + timedelta(days=400)
    sealed(3, at=wrong, **BURST)
    evaluate_all(now=wrong)
    sealed(15, at=NOW, **BURST)
    evaluate_all()
    assert alerts()[BURST_ALERT] == 1


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


def set_aside() -> list[tuple[str, uuid.UUID, str]]:
    return [(row.reader, row.event_id, row.error) for row in SetAsideEvent.objects.order_by("pk")]


def fail(event: Event) -> str | None:
    if event.request_id == "refused":
        raise KeyError(event.id)
    return event.actor


class FailingRule(ThresholdRule):
    """Fails in `evaluate` instead of in `key`."""

    def evaluate(self, event: Event, memory: dict[str, Any]) -> bool:
        fail(event)
        return super().evaluate(event, memory)


class UnstorableRule(ThresholdRule):
    """Leaves a memory that is no JSON."""

    def evaluate(self, event: Event, memory: dict[str, Any]) -> bool:
        if event.request_id == "refused":
            memory["last"] = event.id
        return super().evaluate(event, memory)


def rule_of_project(rule_class: type[ThresholdRule], key: Callable[[Event], Any]) -> ThresholdRule:
    return rule_class(
        kind="of_project",
        actions={"login.refused", "alert.raised"},
        key=key,
        threshold=2,
        memory_lifetime=HOUR,
    )


RULES_THAT_FAIL = [
    pytest.param(rule_of_project(ThresholdRule, fail), "KeyError", id="key"),
    pytest.param(rule_of_project(FailingRule, lambda event: event.actor), "KeyError", id="evaluate"),
    pytest.param(
        rule_of_project(ThresholdRule, lambda event: 7 if event.request_id == "refused" else event.actor),
        "TypeError",
        id="key that is no text",
    ),
]
REFUSED = Origin(actor="7", client_ip="198.51.100.1", request_id="refused")


@pytest.mark.parametrize(("rule", "error"), RULES_THAT_FAIL)
def test_p1_event_that_a_rule_fails_on_is_set_aside_for_this_rule_only(rule: Rule, error: str) -> None:
    (refused,) = events(1, **{**FORGED, "origin": REFUSED})
    sealed(3, at=NOW + MINUTE, **FORGED)
    rules = [rule, *get_builtin_rules()]
    assert evaluate_batch(rules, now=NOW) == 4
    assert set_aside() == [("rule:of_project", refused, error)]
    assert alerts()["token_forged", "198.51.100.1"] == 4, "the other rules see the event"
    assert WatchCursor.objects.get().tree_size == 4
    seal_now(at=NOW + 2 * MINUTE)
    evaluate_batch(rules, now=NOW)
    assert alerts()["event_set_aside", ""] == 1


def test_p1_memory_that_cannot_be_stored_is_set_aside_with_its_last_event() -> None:
    rule = rule_of_project(UnstorableRule, lambda event: event.actor)
    sealed(1, **FORGED)
    evaluate_batch([rule], now=NOW)
    stored = AnomalyMemory.objects.get().state
    (refused,) = sealed(1, at=NOW + MINUTE, **{**FORGED, "origin": REFUSED})
    evaluate_batch([rule, *get_builtin_rules()], now=NOW)
    assert set_aside() == [("rule:of_project", refused, "TypeError")]
    assert AnomalyMemory.objects.get(kind="of_project").state == stored
    assert WatchCursor.objects.get().tree_size == 2


def test_p1_rule_that_fails_on_all_events_leaves_a_limited_number_of_rows_and_one_alert() -> None:
    def always_fail(event: Event) -> str | None:
        raise ValueError(event.id)

    rules = [rule_of_project(ThresholdRule, always_fail), *get_builtin_rules()]
    sealed(MAX_SET_ASIDE_PER_KIND + 20, **FORGED)
    for minute in range(1, 5):
        evaluate_batch(rules, now=NOW)
        seal_now(at=NOW + minute * MINUTE)
    assert WatchCursor.objects.get().tree_size == AuditEvent.objects.using("phi_audit").count()
    aside_alerts = [detail for resource, detail in recorded_alerts() if resource == "EventReader/rule:of_project"]
    assert [detail["count"] for detail in aside_alerts] == [MAX_SET_ASIDE_PER_KIND + 20]
    assert len(set_aside()) == MAX_SET_ASIDE_PER_KIND + 1


@pytest.mark.parametrize("state", ["", "[]", '{"things":[]}', '{"things":{"a":"b"}}', "nul", "[" * 100_000])
def test_p1_damaged_memory_is_replaced(state: str) -> None:
    for kind in ("refusals_by_address", "refusals_by_provider", "many_records"):
        AnomalyMemory.objects.create(kind=kind, key="198.51.100.1", state=state, expires_at=NOW + HOUR)
    sealed(15, **BURST)
    evaluate_all()
    assert alerts()[BURST_ALERT] == 1
    assert set_aside() == []


def test_p1_event_that_a_rule_fails_on_does_not_change_the_memory() -> None:
    rules = [rule_of_project(FailingRule, lambda event: event.actor)]
    sealed(1, **FORGED)
    evaluate_batch(rules, now=NOW)
    sealed(1, at=NOW + MINUTE, **{**FORGED, "origin": REFUSED})
    sealed(1, at=NOW + 2 * MINUTE, **FORGED)
    evaluate_batch(rules, now=NOW)
    assert alerts()["of_project", "7"] == 1


def test_p1_key_that_the_database_refuses_is_stored_with_replacement_characters() -> None:
    rules = [rule_of_project(ThresholdRule, lambda event: "a\0b\ud800c")]
    sealed(2, **FORGED)
    evaluate_batch(rules, now=NOW)
    assert alerts() == {("of_project", "a\N{REPLACEMENT CHARACTER}b?c"): 1}


@pytest.mark.parametrize("is_corrected", [True, False])
def test_p1_retry_evaluates_an_event_that_was_set_aside(is_corrected: bool, settings: Any) -> None:
    (refused,) = sealed(1, **{**FORGED, "origin": REFUSED})
    evaluate_batch([rule_of_project(FailingRule, lambda event: event.actor)], now=NOW)
    sealed(1, at=NOW + MINUTE, **FORGED)
    evaluate_batch([rule_of_project(ThresholdRule, lambda event: event.actor)], now=NOW)
    assert ("of_project", "7") not in alerts()
    name = "CORRECTED_RULE" if is_corrected else "UNCHANGED_RULE"
    settings.PHI_OIDC = {**settings.PHI_OIDC, "ANOMALY_RULES": [f"{__name__}.{name}"]}
    errors = retry_events(list_set_aside_events([refused]), origin=Origin(), now=NOW)
    assert [*errors.values()] == ([] if is_corrected else ["KeyError"])
    assert len(set_aside()) == (0 if is_corrected else 1)
    assert alerts().get(("of_project", "7"), 0) == (1 if is_corrected else 0)


CORRECTED_RULE = rule_of_project(ThresholdRule, lambda event: event.actor)
UNCHANGED_RULE = rule_of_project(FailingRule, lambda event: event.actor)
