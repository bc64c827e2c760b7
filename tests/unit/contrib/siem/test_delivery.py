import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.db import OperationalError, connections, transaction

from django_phi_oidc.audit.events import Action, AuthenticatedEvent, canonical_bytes, compute_mac, parse_event
from django_phi_oidc.audit.formats.items import LogItem, SealedEvent
from django_phi_oidc.audit.log import sequencer
from django_phi_oidc.audit.log.cursor import MAX_UNREADABLE
from django_phi_oidc.audit.merkle.checkpoint import verify_checkpoint
from django_phi_oidc.audit.merkle.compact import CompactRange
from django_phi_oidc.audit.merkle.rfc6962 import hash_leaf
from django_phi_oidc.audit.models import (
    AuditCheckpoint,
    AuditEvent,
    AuditLeaf,
    AuditOutbox,
    AuditWitness,
    SetAsideEvent,
)
from django_phi_oidc.audit.storage import insert_events
from django_phi_oidc.contrib.siem.declaration import parse_sink
from django_phi_oidc.contrib.siem.delivery import (
    LEASE_DURATION,
    DeliveryResult,
    check_lag,
    deliver,
    make_due_now,
)
from django_phi_oidc.contrib.siem.http_protocol import SendResult
from django_phi_oidc.contrib.siem.models import SinkCursor
from django_phi_oidc.contrib.siem.sinks import create_sink
from django_phi_oidc.crypto import keyring
from tests.support.audit_tampering import sql, without_triggers
from tests.support.databases import child_environment
from tests.support.sealed_events import NOW, Clock, checkpoint, digest, finished, first_receipts, seal, sealed_order

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])

LATE = timedelta(minutes=5)
REFUSING = SendResult(accepted=0, fault="http_400", needs_operator=True)
AWAY = SendResult(accepted=0, fault="transport_unreachable")


@dataclass
class Recorder:
    """A sink in memory that returns the given results, and accepts everything after them."""

    results: list[SendResult] = field(default_factory=list)
    received: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    during: Callable[[], object] = lambda: None

    def send(self, items: Sequence[LogItem], *, timeout_seconds: float) -> SendResult:
        self.batches.append(len(items))
        self.during()
        result = self.results.pop(0) if self.results else SendResult(accepted=len(items))
        self.received += [name_of(item) for item in items[: result.accepted]]
        return result


def name_of(item: LogItem) -> str:
    if isinstance(item, SealedEvent):
        return str(item.authenticated_event.event.id)
    return f"checkpoint-{item.epoch}-{item.tree_size}"


def run(sink: Recorder, clock: Clock, *, batch: int = 500, seconds: float = 10) -> DeliveryResult:
    return deliver("siem", sink, clock=clock, seconds=seconds, batch_size=batch)


def cursor() -> SinkCursor:
    return SinkCursor.objects.get(name="siem")


def alerts() -> list[tuple[str, str, str]]:
    rows = AuditEvent.objects.filter(action=Action.ALERT_RAISED).order_by("id")
    return [(json.loads(row.detail)["rule"], row.reason, row.resource) for row in rows]


@pytest.fixture
def sink() -> Recorder:
    return Recorder()


def test_empty_log_is_caught_up(sink: Recorder, clock: Clock) -> None:
    assert run(sink, clock) == DeliveryResult(is_caught_up=True)
    assert sink.batches == []


def test_leaf_without_a_checkpoint_is_not_delivered(sink: Recorder, clock: Clock) -> None:
    seal(2)
    AuditLeaf.objects.create(leaf_index=2, event_id=finished().event.id, leaf_hash=digest("unsealed"))
    assert run(sink, clock) == DeliveryResult(accepted=3, is_caught_up=True)
    assert cursor().tree_size == 2


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 7, 500])
def test_checkpoints_follow_the_events_that_they_cover_for_any_batch_size(
    sink: Recorder, clock: Clock, batch: int
) -> None:
    for count in (3, 1, 0, 4):
        if count:
            seal(count)
    assert run(sink, clock, batch=batch).is_caught_up
    assert sink.received == sealed_order()
    assert max(sink.batches) <= batch


def test_delivery_stops_after_its_time_and_continues_later(sink: Recorder, clock: Clock) -> None:
    seal(5)
    assert run(sink, clock, batch=2, seconds=0) == DeliveryResult(accepted=2)
    assert run(sink, clock, batch=2).is_caught_up
    assert sink.received == sealed_order()


def test_delivery_within_a_transaction_is_refused(sink: Recorder, clock: Clock) -> None:
    seal(1)
    with transaction.atomic(), pytest.raises(RuntimeError):
        run(sink, clock)
    assert sink.batches == []


def test_no_transaction_is_open_while_sending(sink: Recorder, clock: Clock) -> None:
    seal(1)
    in_transaction: list[bool] = []
    sink.during = lambda: in_transaction.extend(
        connections[alias].in_atomic_block for alias in ("default", "phi_audit")
    )
    run(sink, clock)
    assert in_transaction == [False, False]


def test_back_off_grows_with_each_failure(sink: Recorder, clock: Clock) -> None:
    seal(1)
    waits: list[float] = []
    for _ in range(4):
        sink.results = [AWAY]
        assert run(sink, clock).fault == "transport_unreachable"
        waits.append((cursor().due_at - clock.now).total_seconds())
        assert run(sink, clock) == DeliveryResult()  # not due
        clock.now = cursor().due_at
    assert all(5 * 2**n <= wait <= 10 * 2**n for n, wait in enumerate(waits))
    assert run(sink, clock).is_caught_up
    assert cursor().attempts == 0


def test_retry_after_is_respected(sink: Recorder, clock: Clock) -> None:
    seal(1)
    sink.results = [SendResult(accepted=0, fault="http_429", retry_after=timedelta(minutes=20))]
    run(sink, clock)
    assert cursor().due_at == clock.now + timedelta(minutes=20)


def test_permanent_refusal_is_retried_slowly_and_raises_one_alert(sink: Recorder, clock: Clock) -> None:
    seal(1)
    for _ in range(3):
        sink.results = [REFUSING]
        run(sink, clock)
        assert cursor().due_at >= clock.now + timedelta(minutes=15)
        clock.now = cursor().due_at
    assert alerts() == [("delivery_refused", "http_400", "Sink/siem")]
    assert run(sink, clock).is_caught_up


class ChoosySink(Recorder):
    """Refuses each batch that contains one of these items, as a firewall does."""

    def __init__(self, *refused: str, result: SendResult = REFUSING) -> None:
        super().__init__()
        self.refused = refused
        self.result = result

    def send(self, items: Sequence[LogItem], *, timeout_seconds: float) -> SendResult:
        if any(name_of(item) in self.refused for item in items):
            self.batches.append(len(items))
            return self.result
        return super().send(items, timeout_seconds=timeout_seconds)


class FormattingSink(ChoosySink):
    """Cannot format these items."""

    def send(self, items: Sequence[LogItem], *, timeout_seconds: float) -> SendResult:
        if super().send(items, timeout_seconds=timeout_seconds).accepted < len(items):
            raise OverflowError
        return SendResult(accepted=len(items))


def set_aside() -> list[tuple[str, str, str]]:
    return [(row.reader, str(row.event_id), row.error) for row in SetAsideEvent.objects.order_by("pk")]


@pytest.mark.parametrize("index", [0, 5, 19])
@pytest.mark.parametrize(("kind", "error"), [(ChoosySink, "http_400"), (FormattingSink, "item_unformattable")])
def test_p1_item_that_only_this_sink_refuses_is_set_aside_in_one_run(
    clock: Clock, index: int, kind: type[ChoosySink], error: str
) -> None:
    seal(20)
    order = sealed_order()
    sink = kind(order[index])
    assert run(sink, clock, batch=16).is_caught_up
    assert sorted({*sink.received}) == sorted({*order} - {order[index]})
    assert set_aside() == [("sink:siem", order[index], error)]
    assert alerts() == [("event_set_aside", "", "EventReader/sink:siem")]
    assert cursor().tree_size == 20


def test_p1_several_refused_items_are_set_aside(clock: Clock) -> None:
    seal(20)
    order = sealed_order()
    sink = ChoosySink(order[3], order[4], order[11])
    assert run(sink, clock).is_caught_up
    assert {event_id for _, event_id, _ in set_aside()} == {order[3], order[4], order[11]}


@pytest.mark.parametrize("result", [REFUSING, AWAY])
def test_p1_sink_that_refuses_everything_gets_each_item_later(sink: Recorder, clock: Clock, result: SendResult) -> None:
    seal(20)
    assert run(ChoosySink(*sealed_order(), result=result), clock).fault == result.fault
    assert (set_aside(), cursor().tree_size) == ([], 0)
    clock.now = cursor().due_at
    assert run(sink, clock).is_caught_up
    assert sink.received == sealed_order()


def test_p1_refused_checkpoint_is_not_passed_over(clock: Clock) -> None:
    seal(3)
    assert run(ChoosySink("checkpoint-1-3"), clock).fault == "http_400"
    assert (set_aside(), cursor().checkpoint_size) == ([], 0)


def test_p1_sink_that_accepts_the_item_again_gets_it(clock: Clock) -> None:
    seal(2)
    sink = Recorder(results=[REFUSING, REFUSING])
    assert run(sink, clock).is_caught_up
    assert ({*sink.received}, set_aside()) == ({*sealed_order()}, [])


def test_worker_without_the_lease_sends_nothing(sink: Recorder, clock: Clock) -> None:
    seal(3)
    other = Recorder()
    sink.during = lambda: run(other, clock)
    assert run(sink, clock).is_caught_up
    assert other.batches == []


def test_worker_that_lost_its_lease_records_nothing(sink: Recorder, clock: Clock) -> None:
    """The worker was suspended for longer than the lease, and another continued."""
    seal(3)
    other = Recorder()

    def overtake() -> None:
        clock.now += LEASE_DURATION
        assert run(other, clock).is_caught_up

    sink.during = overtake
    assert run(sink, clock) == DeliveryResult()
    assert (cursor().tree_size, cursor().attempts, cursor().last_fault) == (3, 0, "")
    assert other.received == sealed_order()


def test_failure_of_a_worker_that_lost_its_lease_is_not_recorded(sink: Recorder, clock: Clock) -> None:
    seal(3)

    def overtake() -> None:
        clock.now += LEASE_DURATION
        assert run(Recorder(), clock).is_caught_up

    sink.during = overtake
    sink.results = [REFUSING]
    run(sink, clock)
    assert (cursor().tree_size, cursor().last_fault, alerts()) == (3, "", [])


def test_four_concurrent_workers_keep_the_order(sink: Recorder, clock: Clock) -> None:
    for _ in range(10):
        seal(5)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                run(sink, clock, batch=3, seconds=0)
        except BaseException as error:  # noqa: BLE001 -- asserted below
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert run(sink, clock).is_caught_up
    assert sink.received == sealed_order()


def test_worker_killed_before_it_recorded_a_batch_repeats_it(file: Path, clock: Clock) -> None:
    seal(6)
    script = Path(__file__).with_name("killed_delivery_process.py")
    environment = child_environment(os.environ, settings.DATABASES)
    environment["PYTHONPATH"] = str(Path(__file__).parents[4])
    connections.close_all()
    ended = subprocess.run([sys.executable, script, file], env=environment, check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    sink = create_sink(parse_sink("siem", {"type": "file", "path": str(file)}), hostname="s")
    assert deliver("siem", sink, clock=clock, seconds=5) == DeliveryResult()  # the lease of the killed worker
    clock.now += LEASE_DURATION
    assert deliver("siem", sink, clock=clock, seconds=5).accepted == 7
    lines = file.read_text().splitlines()
    assert lines[4] == '{"half": '
    objects = [json.loads(line) for line in lines[:4] + lines[5:]]
    received = [item.get("id", f"checkpoint-1-{item.get('tree_size')}") for item in objects]
    assert received == sealed_order()[:4] + sealed_order()
    assert first_receipts(received) == sealed_order()


def test_restored_log_stops_the_sink_with_one_alert(sink: Recorder, clock: Clock) -> None:
    seal(2)
    SinkCursor.objects.create(name="siem", tree_size=9, checkpoint_size=9, epoch=1, leaf_hash=digest("l"), due_at=NOW)
    for _ in range(2):
        assert run(sink, clock).fault == "log_behind_sink"
        clock.now = cursor().due_at
    assert (sink.batches, alerts()) == ([], [("delivery_stopped", "log_behind_sink", "Sink/siem")])


def test_vanished_log_stops_the_sink(sink: Recorder, clock: Clock) -> None:
    SinkCursor.objects.create(name="siem", tree_size=9, checkpoint_size=9, epoch=1, leaf_hash=digest("l"), due_at=NOW)
    assert run(sink, clock).fault == "log_behind_sink"


def test_new_epoch_is_delivered_from_its_beginning(sink: Recorder, clock: Clock) -> None:
    """The sink had nine events, of which the backup has four. The operator has declared a new epoch."""
    seal(4)
    run(sink, clock)
    lost = {"tree_size": 9, "checkpoint_size": 9, "leaf_hash": digest("lost"), "root_hash": digest("lost")}
    SinkCursor.objects.update(**lost)
    seal(3, epoch=2)
    assert run(sink, clock, batch=2).is_caught_up
    seal(6, epoch=2)
    assert run(sink, clock, batch=2).is_caught_up
    assert sink.received == sealed_order()


def test_log_that_lost_events_after_the_last_checkpoint_is_delivered_from_there(sink: Recorder, clock: Clock) -> None:
    """Events of an undelivered checkpoint are lost: the sealer may continue, and no new event is skipped."""
    seal(4)
    run(sink, clock)
    SinkCursor.objects.update(tree_size=6, leaf_hash=digest("lost"))
    seal(5)
    assert run(sink, clock).is_caught_up
    assert sink.received == sealed_order()


def test_forked_log_stops_the_sink_with_an_alert(sink: Recorder, clock: Clock) -> None:
    seal(4)
    run(sink, clock)
    SinkCursor.objects.update(root_hash=digest("another"), leaf_hash=digest("another"))
    seal(2)
    assert run(sink, clock) == DeliveryResult(fault="log_forked")
    assert alerts() == [("delivery_stopped", "log_forked", "Sink/siem")]


def add_leaf_without_event(index: int) -> str:
    missing = finished()
    AuditLeaf.objects.create(leaf_index=index, event_id=missing.event.id, leaf_hash=digest("missing"))
    return str(missing.event.id)


def test_p1_leaf_without_an_event_is_set_aside(sink: Recorder, clock: Clock) -> None:
    seal(2)
    missing = add_leaf_without_event(2)
    checkpoint(3)
    seal(2)
    assert run(sink, clock).is_caught_up
    assert len(sink.received) == 4 + 3
    assert set_aside() == [("sink:siem", missing, "event_missing")]
    assert alerts() == [("event_set_aside", "", "EventReader/sink:siem")]


def test_many_leaves_without_events_stop_the_sink_with_one_alert(sink: Recorder, clock: Clock) -> None:
    seal(2)
    for index in range(2, 3 + MAX_UNREADABLE):
        add_leaf_without_event(index)
    checkpoint(3 + MAX_UNREADABLE)
    for _ in range(2):
        assert run(sink, clock).fault == "event_missing"
        clock.now = cursor().due_at
    assert (sink.received, cursor().tree_size, set_aside()) == (sealed_ids(2), 2, [])
    assert alerts() == [("delivery_stopped", "event_missing", "Sink/siem")]


def sealed_ids(size: int) -> list[str]:
    """Return the first size events, and the checkpoint of that size."""
    leaves = AuditLeaf.objects.filter(leaf_index__lt=size).order_by("leaf_index")
    return [*(str(leaf.event_id) for leaf in leaves), f"checkpoint-1-{size}"]


@pytest.mark.parametrize("damage", [{"detail": "{"}, {"detail": "[]"}, {"detail": "[" * 9999}, {"outcome": "perhaps"}])
def test_p1_event_that_no_format_can_represent_is_set_aside(
    sink: Recorder, clock: Clock, damage: dict[str, str]
) -> None:
    seal(1)
    damaged = finished()
    fields = {**damaged.event._asdict(), **damage}
    AuditEvent.objects.create(**fields, mac=damaged.mac)
    AuditLeaf.objects.create(leaf_index=1, event_id=damaged.event.id, leaf_hash=digest("damaged"))
    checkpoint(2)
    assert run(sink, clock) == DeliveryResult(accepted=3, is_caught_up=True)
    assert set_aside() == [("sink:siem", str(damaged.event.id), "event_unreadable")]


@pytest.mark.parametrize("damage", [{"detail": "[" * 100_000}, {"outcome": "x"}])
def test_e3_event_planted_with_the_mac_key_stops_no_sink(sink: Recorder, clock: Clock, damage: dict[str, str]) -> None:
    before, planted, after = (finished(now=NOW + timedelta(seconds=number)) for number in range(3))
    event = planted.event._replace(**damage)
    mac = compute_mac(event, keyring.get_keys("audit_mac")[0].material)
    insert_events([before, AuthenticatedEvent(event, mac), after])
    key = Ed25519PrivateKey.generate()
    result = sequencer.append_to_log(key=key, now=NOW)
    assert (result.event_count, result.refused_count) == (2, 1)
    assert run(sink, clock).is_caught_up
    assert sink.received == [str(before.event.id), str(after.event.id), "checkpoint-1-2"]


@pytest.mark.parametrize("value", ["infinity", "2026-11-24 16:05:09+00 BC"])
@pytest.mark.postgresql
def test_p1_event_that_no_model_can_load_is_set_aside(sink: Recorder, clock: Clock, value: str) -> None:
    seal(5)
    victim = AuditLeaf.objects.get(leaf_index=3).event_id
    with without_triggers():
        sql("UPDATE phi_oidc_audit_auditevent SET occurred_at = %s WHERE id = %s", value, victim)
    assert run(sink, clock).is_caught_up
    assert [name for name in sealed_order() if name not in sink.received] == [str(victim)]
    assert set_aside() == [("sink:siem", str(victim), "event_unreadable")]


def test_outage_of_the_audit_database_is_retried_soon(sink: Recorder, clock: Clock) -> None:
    seal(1)

    def fail(*args: Any) -> Any:
        raise OperationalError

    for _ in range(6):
        with connections["phi_audit"].execute_wrapper(fail):
            assert run(sink, clock) == DeliveryResult(fault="audit_unavailable")
        assert cursor().due_at <= clock.now + timedelta(seconds=10)
        clock.now = cursor().due_at
    assert run(sink, clock).is_caught_up


def test_gap_between_leaves_stops_the_sink(sink: Recorder, clock: Clock) -> None:
    seal(2)
    checkpoint(4)
    assert run(sink, clock).fault == "event_missing"
    assert cursor().tree_size == 2


def test_largest_delivered_checkpoint_is_stored_as_witness(sink: Recorder, clock: Clock) -> None:
    seal(2)
    seal(3)
    seal(1, origin="portal.example/audit.2", epoch=2)
    run(sink, clock)
    notes = {row.origin: row.note for row in AuditWitness.objects.all()}
    assert {origin: note.split("\n")[1] for origin, note in notes.items()} == {
        "portal.example/audit": "5",
        "portal.example/audit.2": "6",
    }
    assert notes["portal.example/audit"] == AuditCheckpoint.objects.get(tree_size=5).note


@pytest.mark.parametrize(("known", "expected"), [("1", "2"), ("2", "2"), ("9", "9"), ("10", "10"), ("invalid", "2")])
def test_larger_witness_is_kept(sink: Recorder, clock: Clock, known: str, expected: str) -> None:
    AuditWitness.objects.create(origin="portal.example/audit", note=f"portal.example/audit\n{known}\n")
    seal(2)
    run(sink, clock)
    assert AuditWitness.objects.get().note.split("\n")[1] == expected


def test_delivery_without_a_checkpoint_stores_no_witness(sink: Recorder, clock: Clock) -> None:
    seal(2)
    sink.results = [SendResult(accepted=2, fault="http_500")]
    run(sink, clock)
    assert not AuditWitness.objects.exists()


def test_each_lag_raises_one_alert(sink: Recorder, clock: Clock) -> None:
    seal(1)
    clock.now = NOW + LATE
    assert not check_lag("siem", lag_alert=LATE, now=clock.now)
    clock.go_on(seconds=1)
    assert [check_lag("siem", lag_alert=LATE, now=clock.now) for _ in range(3)] == [True] * 3
    assert alerts() == [("delivery_lag", "", "Sink/siem")]
    assert run(sink, clock).is_caught_up
    assert not check_lag("siem", lag_alert=LATE, now=clock.now)
    assert not cursor().lagging
    seal(1, sealed_at=clock.now)
    clock.go_on(minutes=6)
    check_lag("siem", lag_alert=LATE, now=clock.now)
    assert len(alerts()) == 2


def test_lag_ends_when_the_sink_has_caught_up_once(sink: Recorder, clock: Clock) -> None:
    """On a busy portal there is always a new event at each check."""
    seal(1)
    clock.go_on(minutes=10)
    check_lag("siem", lag_alert=LATE, now=clock.now)
    assert run(sink, clock).is_caught_up
    seal(1, sealed_at=clock.now)
    assert not check_lag("siem", lag_alert=LATE, now=clock.now)
    clock.go_on(minutes=10)
    check_lag("siem", lag_alert=LATE, now=clock.now)
    assert len(alerts()) == 2


def test_lag_during_back_off_raises_an_alert_with_the_fault(sink: Recorder, clock: Clock) -> None:
    seal(1)
    sink.results = [REFUSING]
    run(sink, clock)
    clock.go_on(minutes=5)
    assert run(sink, clock) == DeliveryResult()  # not due
    assert check_lag("siem", lag_alert=LATE, now=clock.now)
    assert alerts()[1] == ("delivery_lag", "http_400", "Sink/siem")


def test_no_alert_is_recorded_when_the_cursor_is_not_updated(sink: Recorder, clock: Clock) -> None:
    seal(1)
    sink.results = [REFUSING]
    sink.during = lambda: SinkCursor.objects.update(attempts=7)
    run(sink, clock)
    assert (alerts(), AuditOutbox.objects.count()) == ([], 0)


def test_make_due_now_ends_the_back_off(sink: Recorder, clock: Clock) -> None:
    seal(1)
    sink.results = [REFUSING]
    run(sink, clock)
    make_due_now(["siem"], now=clock.now)
    assert run(sink, clock).is_caught_up


def test_delivered_lines_prove_the_log_without_the_database(file: Path, clock: Clock) -> None:
    """Each MAC, leaf, root and signature is recomputed from the file only."""
    key = Ed25519PrivateKey.generate()
    for start in (0, 3):
        insert_events([finished(now=NOW + timedelta(seconds=start + number)) for number in range(3)])
        sequencer.append_to_log(key=key, now=clock.now)
        clock.go_on(seconds=10)
    sink = create_sink(parse_sink("siem", {"type": "file", "path": str(file)}), hostname="s")
    assert deliver("siem", sink, clock=clock, seconds=5).accepted == 8
    macs = {key.id: key.material for key in keyring.get_keys("audit_mac")}
    tree = CompactRange()
    sizes: list[int] = []
    for line in file.read_text().splitlines():
        members = json.loads(line)
        if "checkpoint" in members:
            signed = verify_checkpoint(members["checkpoint"], [key.public_key()])
            assert (signed.tree_size, signed.root_hash) == (tree.size, tree.compute_root())
            sizes.append(signed.tree_size)
        else:
            copy = parse_event(line.replace(f'"leaf_index":{tree.size},', ""))
            assert copy.mac == compute_mac(copy.event, macs[copy.event.mac_key])
            tree.extend([hash_leaf(canonical_bytes(copy.event))])
    assert sizes == [3, 6]
