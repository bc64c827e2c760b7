"""Events of changes exist exactly if the change is committed."""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DEFAULT_DB_ALIAS, DatabaseError, IntegrityError, connection, connections, transaction
from django.test import TestCase
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import randomness
from django_phi_oidc.audit.actions import WITHDRAWAL_ACTIONS
from django_phi_oidc.audit.events import (
    Action,
    AuthenticatedEvent,
    NewEvent,
    Origin,
    build_event,
    compute_mac,
    parse_event,
    serialize_event,
)
from django_phi_oidc.audit.log.findings import VerificationSummary
from django_phi_oidc.audit.log.verifier import verify_log
from django_phi_oidc.audit.models import AuditEvent, AuditOutbox
from django_phi_oidc.audit.outbox import (
    MOVE_TIMEOUT_SECONDS,
    defer_delivery,
    deliver_permit,
    enqueue,
    enqueue_permit,
    flush,
)
from django_phi_oidc.audit.recorder import raise_audit_alert
from django_phi_oidc.audit.storage import get_resource_pseudonym, insert_events, parse_event_row
from django_phi_oidc.audit.tasks import drain_outbox
from django_phi_oidc.crypto import keyring
from django_phi_oidc.errors import AuditUnavailable, KeyMissing
from tests.support.audit_log import KEY, events, seal_now
from tests.support.audit_outage import audit_database_hangs
from tests.support.audit_tampering import DROPPED_ROWS, DropRows, dropping_trigger
from tests.support.phi_oidc_settings import override_phi_oidc

NOW = datetime(2026, 11, 24, 16, 5, 9, 123456, tzinfo=UTC)
ORIGIN = Origin(actor="7", session="a-session")


def enqueue_session_ended(**fields: Any) -> Any:
    return enqueue(Action.SESSION_ENDED, **{"origin": ORIGIN, "now": NOW, "detail": {"tokens": 2}, **fields})


@pytest.fixture
def waiting(audit_database_away: Callable[[], Any]) -> list[AuthenticatedEvent]:
    """Return four events that wait in the outbox, oldest first."""
    with audit_database_away():
        for seconds in range(4):
            with transaction.atomic():
                enqueue_session_ended(now=NOW + timedelta(seconds=seconds))
    return [parse_event(row.event) for row in AuditOutbox.objects.order_by("id")]


@pytest.fixture
def count_events() -> Callable[[], tuple[int, int]]:
    """Return a function that counts the events in the outbox and in the audit log."""
    return lambda: (AuditOutbox.objects.count(), AuditEvent.objects.count())


@pytest.mark.django_db(transaction=True)
def test_event_of_a_committed_change_is_moved_at_once(count_events: Any) -> None:
    with transaction.atomic():
        id_ = enqueue_session_ended()
        assert count_events() == (1, 0)
    assert count_events() == (0, 1)
    row = AuditEvent.objects.get(id=id_)
    assert parse_event_row(row).mac == compute_mac(
        parse_event_row(row).event, keyring.get_keys("audit_mac")[0].material
    )


@pytest.mark.django_db(transaction=True)
def test_event_of_a_rolled_back_change_does_not_exist(count_events: Any) -> None:
    with transaction.atomic():
        enqueue_session_ended()
        transaction.set_rollback(True)
    assert count_events() == (0, 0)


@pytest.mark.django_db(transaction=True)
def test_event_of_a_rolled_back_savepoint_does_not_exist(count_events: Any) -> None:
    with transaction.atomic():
        with transaction.atomic():
            enqueue_session_ended()
            transaction.set_rollback(True)
        id_ = enqueue_session_ended()
    assert count_events() == (0, 1)
    assert AuditEvent.objects.get().id == id_


@pytest.mark.django_db(transaction=True)
def test_enqueue_outside_a_transaction_raises(count_events: Any) -> None:
    with pytest.raises(RuntimeError, match="transaction"):
        enqueue_session_ended()
    assert count_events() == (0, 0)


@pytest.mark.django_db(transaction=True)
def test_enqueue_makes_three_statements() -> None:
    with (
        CaptureQueriesContext(connections["phi_audit"]) as audit_queries,
        CaptureQueriesContext(connections["default"]) as default_queries,
        transaction.atomic(),
    ):
        enqueue_session_ended()
    statements = [
        query["sql"].split()[0]
        for query in (*default_queries, *audit_queries)
        if query["sql"].split()[0] not in ("BEGIN", "COMMIT")
    ]
    assert statements == ["INSERT", "DELETE", "INSERT"]


PERMIT = NewEvent(action=Action.LOGIN_SUCCEEDED, origin=ORIGIN, now=NOW)


def commit_change_and_permit() -> list[AuthenticatedEvent]:
    """Commit a change and a permit, whose events wait in the outbox."""
    with defer_delivery() as changes, transaction.atomic():
        enqueue_session_ended()
        permit = enqueue_permit([PERMIT])
    return [*changes, *permit]


@pytest.mark.django_db(transaction=True)
def test_permit_is_committed_with_its_change_and_moved_with_its_event(count_events: Any) -> None:
    events = commit_change_and_permit()
    assert count_events() == (2, 0)
    with (
        CaptureQueriesContext(connections["phi_audit"]) as audit_queries,
        CaptureQueriesContext(connections["default"]) as default_queries,
    ):
        deliver_permit(events)
    assert [[query["sql"].split()[0] for query in queries] for queries in (audit_queries, default_queries)] == [
        ["INSERT"],
        ["DELETE"],
    ]
    assert count_events() == (0, 2)
    assert {parse_event_row(row) for row in AuditEvent.objects.all()} == set(events)


@pytest.mark.django_db(transaction=True)
def test_permit_outside_a_transaction_or_without_its_key_is_refused(settings: Any, count_events: Any) -> None:
    with pytest.raises(RuntimeError):
        enqueue_permit([PERMIT])
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_mac": []})
    with pytest.raises(KeyMissing), transaction.atomic():
        enqueue_permit([PERMIT])
    assert count_events() == (0, 0)


@pytest.mark.django_db(transaction=True)
def test_defer_delivery_ends_with_its_block_and_ignores_rolled_back_changes(count_events: Any) -> None:
    with defer_delivery() as changes, transaction.atomic():
        enqueue_session_ended()
        transaction.set_rollback(True)
    assert changes == []
    with transaction.atomic():
        enqueue_session_ended()
    assert count_events() == (0, 1)


@pytest.mark.django_db(transaction=True)
def test_defer_delivery_that_ends_before_the_commit_defers_nothing(count_events: Any) -> None:
    with transaction.atomic():
        with defer_delivery() as changes:
            enqueue_session_ended()
        assert count_events() == (1, 0)
    assert (changes, count_events()) == ([], (0, 1))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("limit", [1, 2])
def test_permit_is_given_after_a_concurrent_flush(limit: int, count_events: Any) -> None:
    events = commit_change_and_permit()
    assert flush(limit=limit) == limit
    deliver_permit(events)
    assert count_events() == (0, 2)


def test_permit_without_the_audit_database_is_refused_and_not_lost(
    audit_database_away: Callable[[], Any], count_events: Any
) -> None:
    events = commit_change_and_permit()
    with audit_database_away(), pytest.raises(AuditUnavailable):
        deliver_permit(events)
    assert count_events() == (2, 0)
    assert flush() == 2


@pytest.mark.django_db(transaction=True)
def test_permit_whose_id_has_another_event_is_refused() -> None:
    events = commit_change_and_permit()
    insert_events([replace(events[1], mac=bytes(32))])
    with pytest.raises(AuditUnavailable):
        deliver_permit(events)


class EnqueueInATestCase(TestCase):
    """Django's TestCase, which can run on_commit callbacks."""

    databases = frozenset({"default", "phi_audit"})

    def test_event_in_a_test_case_is_moved_when_on_commit_callbacks_run(self) -> None:
        with self.captureOnCommitCallbacks(execute=True):
            id_ = enqueue_session_ended()
        assert AuditEvent.objects.get().id == id_
        assert not AuditOutbox.objects.exists()

    def test_event_in_a_test_case_waits_for_flush_otherwise(self) -> None:
        id_ = enqueue_session_ended()
        assert not AuditEvent.objects.exists()
        assert flush() == 1
        assert AuditEvent.objects.get().id == id_


def test_event_waits_without_the_audit_database_and_flush_moves_it(
    audit_database_away: Callable[[], Any], count_events: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with audit_database_away():
        with transaction.atomic():
            id_ = enqueue_session_ended()
        with pytest.raises(AuditUnavailable):
            flush()
    assert f"event {id_} waits" in caplog.text
    assert count_events() == (1, 0)
    assert flush() == 1
    assert count_events() == (0, 1)
    assert flush() == 0


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_hanging_audit_database_delays_only_one_commit_and_briefly(count_events: Any) -> None:
    started = time.monotonic()
    with audit_database_hangs():
        for seconds in range(3):
            with transaction.atomic():
                enqueue_session_ended(now=NOW + timedelta(seconds=seconds))
    took = time.monotonic() - started
    assert MOVE_TIMEOUT_SECONDS <= took < 3 * MOVE_TIMEOUT_SECONDS
    # The database may store the first event afterwards.
    assert AuditOutbox.objects.count() == 3
    assert flush() == 3
    with transaction.atomic():
        enqueue_session_ended()
    assert count_events() == (0, 4)


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_event_that_the_database_stores_after_the_deadline_is_not_stored_again(count_events: Any) -> None:
    with audit_database_hangs(), transaction.atomic():
        enqueue_session_ended()
    # The move after the commit has failed. The database executes its INSERT when it responds again.
    ends_at = time.monotonic() + 10
    while count_events() != (1, 1) and time.monotonic() < ends_at:
        time.sleep(0.05)
    assert count_events() == (1, 1)
    assert flush() == 1
    assert count_events() == (0, 1)


def test_flush_moves_at_most_limit_events_oldest_first(waiting: list[AuthenticatedEvent], count_events: Any) -> None:
    assert flush(limit=3) == 3
    assert count_events() == (1, 3)
    assert AuditOutbox.objects.get().id == waiting[3].event.id


def test_flush_after_a_kill_between_insert_and_delete_only_deletes(
    waiting: list[AuthenticatedEvent], count_events: Any
) -> None:
    insert_events(waiting[1:3])
    assert count_events() == (4, 2)
    assert flush() == 4
    assert count_events() == (0, 4)
    assert [parse_event_row(row) for row in AuditEvent.objects.order_by("id")] == waiting


def test_flush_keeps_an_event_whose_id_is_used_by_another(
    waiting: list[AuthenticatedEvent], count_events: Any, caplog: pytest.LogCaptureFixture
) -> None:
    other = waiting[0].event._replace(reason="other")
    insert_events([AuthenticatedEvent(other, compute_mac(other, b"k" * 32))])
    assert flush() == 3
    # The four events, and the alert.
    assert count_events() == (1, 5)
    assert AuditOutbox.objects.get().id == waiting[0].event.id
    assert f"Event {waiting[0].event.id} is not moved" in caplog.text
    assert refused_ids() == [str(waiting[0].event.id)]


@pytest.mark.parametrize("damage", ["", "{}", "null", "another"])
def test_flush_keeps_damaged_rows_and_moves_the_others(
    waiting: list[AuthenticatedEvent], count_events: Any, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    text = serialize_event(waiting[3]) if damage == "another" else damage
    AuditOutbox.objects.filter(id__in=[waiting[0].event.id, waiting[1].event.id]).update(event=text)
    assert flush(limit=2) == 2
    # The two other events, and the alert.
    assert count_events() == (2, 3)
    assert refused_ids() == [str(waiting[0].event.id), str(waiting[1].event.id)]
    assert caplog.text.count("aside: ValueError") == 2


def test_flush_keeps_an_event_that_the_database_refuses(
    waiting: list[AuthenticatedEvent], count_events: Any, caplog: pytest.LogCaptureFixture
) -> None:
    table, refused = "phi_oidc_audit_auditevent", waiting[1].event.id
    if connections["phi_audit"].vendor == "sqlite":
        refusing = (
            f"CREATE TRIGGER refusing BEFORE INSERT ON {table} WHEN NEW.id = '{refused.hex}' "
            "BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        undo = "DROP TRIGGER refusing"
    else:
        refusing = f"ALTER TABLE {table} ADD CONSTRAINT refusing CHECK (id <> '{refused}')"
        undo = f"ALTER TABLE {table} DROP CONSTRAINT refusing"
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute(refusing)
    try:
        assert flush() == 3
    finally:
        with connections["phi_audit"].cursor() as cursor:
            cursor.execute(undo)
    assert count_events() == (1, 3)
    assert "the audit log refuses it" in caplog.text


@pytest.mark.postgresql
def test_concurrent_flushes_move_each_event_once(
    audit_database_away: Callable[[], Any], count_events: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with audit_database_away(), transaction.atomic():
        for number in range(300):
            enqueue_session_ended(now=NOW + timedelta(milliseconds=number))
    start = threading.Barrier(4)
    moved: list[int] = []

    def work() -> None:
        try:
            start.wait(timeout=20)
            moved.append(flush(limit=1000))
        finally:
            connections.close_all()

    with caplog.at_level("INFO", "phi_oidc.audit"):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
    assert len(moved) == 4
    assert count_events() == (0, 300)
    assert len([record for record in caplog.records if record.levelname == "INFO"]) == 300
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def fail() -> list[str]:
    raise ConnectionError("the key service is sealed")


@pytest.fixture
def with_keys(settings: Any) -> Any:
    """Make the MAC keys unavailable, and return the settings with them."""
    before = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(before, KEYS={"audit_mac": fail})
    return before


@pytest.mark.django_db(transaction=True)
def test_a2_event_of_a_withdrawal_without_keys_waits_and_gets_its_mac_later(
    settings: Any, with_keys: Any, count_events: Any
) -> None:
    with transaction.atomic():
        id_ = enqueue_session_ended()
    assert count_events() == (1, 0)
    assert flush() == 0
    assert count_events() == (1, 0)
    settings.PHI_OIDC = with_keys
    assert flush() == 1
    stored = parse_event_row(AuditEvent.objects.get(id=id_))
    assert stored.event.detail == '{"signed_late":true,"tokens":2}'
    assert (stored.event.actor, stored.event.occurred_at) == ("7", NOW)
    assert stored.mac == compute_mac(stored.event, keyring.get_keys("audit_mac")[0].material)
    (alert,) = AuditEvent.objects.filter(action=Action.ALERT_RAISED)
    assert alert.detail == f'{{"count":1,"event_ids":["{id_}"],"rule":"events_signed_late"}}'
    assert AuditOutbox.objects.count() == 0


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("action", [Action.SUBJECT_LINKED, Action.EMERGENCY_OPENED, Action.HOLD_PLACED])
def test_a2_event_of_any_other_change_needs_its_key(
    settings: Any, with_keys: Any, count_events: Any, action: Action
) -> None:
    with pytest.raises(KeyMissing), transaction.atomic():
        enqueue(action, origin=ORIGIN, now=NOW)
    assert count_events() == (0, 0)
    settings.PHI_OIDC = with_keys
    with transaction.atomic():
        enqueue(action, origin=ORIGIN, now=NOW)
    assert count_events() == (0, 1)


@pytest.mark.django_db(transaction=True)
def test_a2_rolled_back_withdrawal_without_keys_leaves_no_event(with_keys: Any, count_events: Any) -> None:
    with transaction.atomic():
        enqueue_session_ended()
        transaction.set_rollback(True)
    assert count_events() == (0, 0)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"signed_late":true,', ""),
        ('"session.ended"', '"subject.linked"'),
        ('"mac":"', '"mac":"00'),
        ('"occurred_at":"2026-', '"occurred_at":"9999-'),
        ('"tokens":2', '"tokens":"2"'),
        ('"actor":"7"', '"actor":"8"'),
        ('"tokens":2', '"tokens":3'),
        ('"client_ip":"', '"client_ip":"::1'),
        (f'"occurred_at":"{NOW:%Y-%m-%dT%H:%M:%S.%f}Z"', '"occurred_at":"0001-01-01T00:00:00.000000+01:00"'),
    ],
    ids=[
        "not flagged",
        "another action",
        "a short MAC",
        "p1 another time",
        "p1 another type",
        "p2 another actor",
        "p2 another number",
        "p2 another address",
        "p1 before year 1",
    ],
)
def test_a2_planted_event_without_a_mac_is_not_signed(
    settings: Any, with_keys: Any, count_events: Any, old: str, new: str
) -> None:
    for _ in range(2):
        with transaction.atomic():
            enqueue_session_ended()
    row = AuditOutbox.objects.latest("id")
    assert old in row.event
    AuditOutbox.objects.filter(id=row.id).update(event=row.event.replace(old, new))
    settings.PHI_OIDC = with_keys
    assert flush() == 1
    assert AuditOutbox.objects.get().id == row.id
    assert not AuditEvent.objects.filter(id=row.id).exists()
    assert refused_ids() == [str(row.id)]


def refused_ids() -> list[str]:
    """Return the ids in the alerts about rows that no process of this portal wrote."""
    ids = []
    for alert in AuditEvent.objects.filter(action=Action.ALERT_RAISED, detail__contains="outbox_refused"):
        ids += json.loads(alert.detail)["event_ids"]
    return ids


def plant_event(action: str, proof: bytes, **fields: Any) -> uuid.UUID:
    """Insert an event that waits for its MAC, as a writer to the default database can, and return its id."""
    detail = {"withdrawn": ["7"]} if action == Action.ROLE_CHANGED else {}
    new_event = NewEvent(action, ORIGIN, NOW, detail=detail, **fields)
    event = build_event(new_event, id=randomness.uuid7(NOW), mac_key="")
    AuditOutbox.objects.create(id=event.id, event=serialize_event(AuthenticatedEvent(event, proof)))
    return event.id


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("action", sorted({*WITHDRAWAL_ACTIONS, Action.ROLE_CHANGED}))
@pytest.mark.parametrize("proof", [b"", bytes(32), b"x" * 32], ids=["none", "zeros", "a guess"])
def test_p2_planted_event_is_not_signed_while_the_keys_are_here_or_away(
    settings: Any, with_keys: Any, count_events: Any, action: str, proof: bytes
) -> None:
    """Without any key, by SQL on the default database."""
    planted = plant_event(action, proof)
    assert flush() == 0
    with transaction.atomic():
        written = enqueue_session_ended()
    settings.PHI_OIDC = with_keys
    assert flush() == 1
    assert AuditEvent.objects.filter(id=written).exists()
    assert not AuditEvent.objects.filter(id=planted).exists()
    assert AuditOutbox.objects.get().id == planted
    assert refused_ids() == [str(planted)]
    # The alert is repeated once an hour, and not at each run.
    assert flush() == 0
    assert len(refused_ids()) == 1


@pytest.mark.django_db(transaction=True)
def test_p2_proof_of_another_event_is_not_valid(settings: Any, with_keys: Any, count_events: Any) -> None:
    with transaction.atomic():
        enqueue_session_ended()
    genuine = parse_event(AuditOutbox.objects.get().event, allow_unsigned=True)
    planted = plant_event(Action.SESSION_ENDED, genuine.mac)
    settings.PHI_OIDC = with_keys
    assert flush() == 1
    assert refused_ids() == [str(planted)]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("fallbacks", "moved"), [(["the key of the tests"], 1), ([], 0)])
def test_p2_secret_key_that_was_replaced_proves_an_event_while_it_is_a_fallback(
    settings: Any, with_keys: Any, count_events: Any, fallbacks: list[str], moved: int
) -> None:
    settings.SECRET_KEY = "the key of the tests"
    with transaction.atomic():
        enqueue_session_ended()
    settings.PHI_OIDC = with_keys
    settings.SECRET_KEY = "the next key of the tests"
    settings.SECRET_KEY_FALLBACKS = fallbacks
    assert flush() == moved
    assert AuditOutbox.objects.count() == 1 - moved


@pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
def test_p2_verification_counts_the_events_that_were_signed_late(settings: Any, with_keys: Any) -> None:
    without_keys = settings.PHI_OIDC
    settings.PHI_OIDC = with_keys
    with transaction.atomic():
        enqueue_session_ended()
    events(1, reason='"signed_late":true', detail={"claim": "signed_late"})
    seal_now()
    assert verify_and_count() == (2, 0)
    for count in (1, 2):
        settings.PHI_OIDC = without_keys
        with transaction.atomic():
            enqueue_session_ended()
        settings.PHI_OIDC = with_keys
        flush()
        seal_now(at=NOW + timedelta(minutes=count))
        assert verify_and_count()[1] == count


def verify_and_count() -> tuple[int, int]:
    """Return how many events are in the log, and how many of them were signed late."""
    summary = VerificationSummary()
    assert list(verify_log(keys=[KEY.public_key()], now=NOW, summary=summary)) == []
    return summary.events, summary.signed_late


@pytest.mark.django_db(transaction=True)
def test_p6_each_batch_of_events_that_are_signed_late_has_an_alert(settings: Any, with_keys: Any) -> None:
    without_keys = settings.PHI_OIDC
    ids = []
    for _ in range(3):
        settings.PHI_OIDC = without_keys
        with transaction.atomic():
            ids.append(str(enqueue_session_ended()))
        settings.PHI_OIDC = with_keys
        flush()
    named = []
    for alert in AuditEvent.objects.filter(action=Action.ALERT_RAISED).order_by("id"):
        named += json.loads(alert.detail)["event_ids"]
    assert named == ids


@pytest.mark.django_db(transaction=True)
def test_a2_late_mac_is_the_same_after_a_kill_between_insert_and_delete(
    settings: Any, with_keys: Any, count_events: Any
) -> None:
    with transaction.atomic():
        id_ = enqueue_session_ended()
    settings.PHI_OIDC = with_keys
    with rows_cannot_be_deleted(), pytest.raises(DatabaseError):
        flush()
    assert AuditEvent.objects.filter(id=id_).exists()
    assert AuditOutbox.objects.count() == 1
    new_keys = [keyring.generate_key(), *with_keys["KEYS"]["audit_mac"]]
    settings.PHI_OIDC = override_phi_oidc(with_keys, KEYS={"audit_mac": new_keys})
    assert flush() == 1
    assert AuditOutbox.objects.count() == 0


@contextmanager
def rows_cannot_be_deleted() -> Iterator[None]:
    """Fail each DELETE in the outbox, as if the process were killed before it."""

    def refuse(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("DELETE"):
            raise DatabaseError("killed")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(refuse):
        yield


@pytest.mark.django_db(transaction=True)
def test_a2_late_event_has_a_pseudonym_for_its_resource(settings: Any) -> None:
    keyed = override_phi_oidc(settings.PHI_OIDC, AUDIT={"resource_ids": "keyed"})
    settings.PHI_OIDC = override_phi_oidc(keyed, KEYS={"audit_mac": fail})
    with transaction.atomic():
        enqueue_session_ended(resource="Chart/4711")
    settings.PHI_OIDC = keyed
    assert flush() == 1
    assert AuditEvent.objects.get(action=Action.SESSION_ENDED).resource == get_resource_pseudonym("Chart/4711")


@pytest.mark.django_db(transaction=True)
def test_a2_alert_that_was_signed_late_suppresses_none(settings: Any, with_keys: Any) -> None:
    with transaction.atomic():
        enqueue(Action.ALERT_RAISED, origin=Origin(), now=NOW, detail={"rule": "sealing_lag"})
    settings.PHI_OIDC = with_keys
    flush()
    alerts = AuditEvent.objects.filter(action=Action.ALERT_RAISED, detail__contains="sealing_lag")
    for _ in range(2):
        raise_audit_alert("sealing_lag", now=NOW)
        assert alerts.count() == 2


def test_drain_outbox_task_moves_all_events(waiting: list[AuthenticatedEvent], count_events: Any) -> None:
    drain_outbox()
    assert count_events() == (0, len(waiting))


def test_audit_drain_prints_how_many_events_were_moved(
    waiting: list[AuthenticatedEvent], capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("phi_oidc", "audit", "drain")
    assert capsys.readouterr().out == "Moved: 4.\n"
    assert AuditEvent.objects.count() == len(waiting)


def test_audit_drain_that_leaves_an_event_fails(waiting: list[AuthenticatedEvent]) -> None:
    AuditOutbox.objects.filter(id=waiting[0].event.id).update(event="{}")
    with pytest.raises(CommandError, match=r"Moved: 3; left in the outbox: 1"):
        call_command("phi_oidc", "audit", "drain")


def test_audit_drain_without_the_audit_database_fails(
    waiting: list[AuthenticatedEvent], audit_database_away: Callable[[], Any]
) -> None:
    with audit_database_away(), pytest.raises(CommandError, match="cannot be written"):
        call_command("phi_oidc", "audit", "drain")
    assert AuditOutbox.objects.using(DEFAULT_DB_ALIAS).count() == len(waiting)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("drop_rows", DROPPED_ROWS.values(), ids=DROPPED_ROWS)
def test_e4_outbox_row_stays_until_its_event_is_in_the_log(drop_rows: DropRows, count_events: Any) -> None:
    with drop_rows("auditevent"):
        with transaction.atomic():
            enqueue_session_ended()
        with transaction.atomic():
            enqueue_session_ended(now=NOW + timedelta(seconds=1))
            enqueue_session_ended(now=NOW + timedelta(seconds=2))
        assert count_events() == (3, 0)
        with pytest.raises(CommandError, match=r"Moved: 0; left in the outbox: 3\."):
            call_command("phi_oidc", "audit", "drain")
        assert count_events() == (3, 0)
    assert flush() == 3
    assert count_events() == (0, 3)


@pytest.mark.django_db(transaction=True)
def test_e4_event_that_the_database_drops_does_not_hold_up_the_others(count_events: Any) -> None:
    events = commit_change_and_permit()
    with dropping_trigger("auditevent", only_id=events[1].event.id):
        assert flush() == 1
        assert count_events() == (1, 1)
        with pytest.raises(AuditUnavailable):
            deliver_permit([events[1]])
    assert flush() == 1
    assert AuditOutbox.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_e4_change_is_rolled_back_if_the_outbox_stores_no_row(count_events: Any) -> None:
    with dropping_trigger("auditoutbox", using="default"):
        with pytest.raises(IntegrityError), transaction.atomic():
            enqueue_session_ended()
        assert count_events() == (0, 0)
    with transaction.atomic():
        enqueue_session_ended()
    assert count_events() == (0, 1)
