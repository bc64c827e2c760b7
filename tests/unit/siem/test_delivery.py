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

from django_phi_oidc.audit.events import Action, canonical_bytes, compute_mac, parse_event
from django_phi_oidc.audit.formats.items import LogItem, SealedEvent
from django_phi_oidc.audit.log import sequencer
from django_phi_oidc.audit.models import AuditCheckpoint, AuditEvent, AuditLeaf, AuditOutbox, AuditWitness
from django_phi_oidc.audit.storage import insert_events
from django_phi_oidc.config.sinks import parse_sink
from django_phi_oidc.crypto import keyring
from django_phi_oidc.merkle.checkpoint import verify_checkpoint
from django_phi_oidc.merkle.compact import CompactRange
from django_phi_oidc.merkle.rfc6962 import hash_leaf
from django_phi_oidc.siem.delivery import LEASE_DURATION, DeliveryResult, check_lag, deliver, make_due_now
from django_phi_oidc.siem.http_protocol import SendResult
from django_phi_oidc.siem.models import SinkCursor
from django_phi_oidc.siem.sinks import create_sink
from tests.support.databases import child_environment
from tests.support.sealed_events import NOW, Clock, checkpoint, digest, finished, first_receipts, seal, sealed_order

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])

LATE = timedelta(minutes=5)
REFUSING = SendResult(accepted=0, fault="http_400", needs_operator=True)
AWAY = SendResult(accepted=0, fault="transport_unreachable")


@dataclass
class Recorder:
    """A sink in memory that answers as it is told, or else takes everything."""

    answers: list[SendResult] = field(default_factory=list)
    received: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    during: Callable[[], object] = lambda: None

    def send(self, items: Sequence[LogItem], *, timeout_seconds: float) -> SendResult:
        self.batches.append(len(items))
        self.during()
        answer = self.answers.pop(0) if self.answers else SendResult(accepted=len(items))
        self.received += [name_of(item) for item in items[: answer.accepted]]
        return answer


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


def test_deliver_without_a_log_has_nothing_to_do(sink: Recorder, clock: Clock) -> None:
    assert run(sink, clock) == DeliveryResult(is_caught_up=True)
    assert sink.batches == []


def test_deliver_leaves_what_no_checkpoint_covers(sink: Recorder, clock: Clock) -> None:
    seal(2)
    AuditLeaf.objects.create(leaf_index=2, event_id=finished().event.id, leaf_hash=digest("unsealed"))
    assert run(sink, clock) == DeliveryResult(accepted=3, is_caught_up=True)
    assert cursor().tree_size == 2


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 7, 500])
def test_deliver_puts_checkpoints_behind_what_they_cover_at_any_size_of_batch(
    sink: Recorder, clock: Clock, batch: int
) -> None:
    for count in (3, 1, 0, 4):
        if count:
            seal(count)
    assert run(sink, clock, batch=batch).is_caught_up
    assert sink.received == sealed_order()
    assert max(sink.batches) <= batch


def test_deliver_stops_when_its_time_is_over_and_goes_on_later(sink: Recorder, clock: Clock) -> None:
    seal(5)
    assert run(sink, clock, batch=2, seconds=0) == DeliveryResult(accepted=2)
    assert run(sink, clock, batch=2).is_caught_up
    assert sink.received == sealed_order()


def test_deliver_within_a_transaction_is_refused(sink: Recorder, clock: Clock) -> None:
    seal(1)
    with transaction.atomic(), pytest.raises(RuntimeError):
        run(sink, clock)
    assert sink.batches == []


def test_deliver_has_no_transaction_open_while_it_sends(sink: Recorder, clock: Clock) -> None:
    seal(1)
    open_ones: list[bool] = []
    sink.during = lambda: open_ones.extend(connections[alias].in_atomic_block for alias in ("default", "phi_audit"))
    run(sink, clock)
    assert open_ones == [False, False]


def test_deliver_after_a_failure_backs_off_longer_each_time(sink: Recorder, clock: Clock) -> None:
    seal(1)
    waits: list[float] = []
    for _ in range(4):
        sink.answers = [AWAY]
        assert run(sink, clock).fault == "transport_unreachable"
        waits.append((cursor().due_at - clock.now).total_seconds())
        assert run(sink, clock) == DeliveryResult()  # not due
        clock.now = cursor().due_at
    assert all(5 * 2**n <= wait <= 10 * 2**n for n, wait in enumerate(waits))
    assert run(sink, clock).is_caught_up
    assert cursor().attempts == 0


def test_deliver_never_comes_back_before_it_was_asked_to(sink: Recorder, clock: Clock) -> None:
    seal(1)
    sink.answers = [SendResult(accepted=0, fault="http_429", retry_after=timedelta(minutes=20))]
    run(sink, clock)
    assert cursor().due_at == clock.now + timedelta(minutes=20)


def test_deliver_to_a_collector_that_refuses_goes_slowly_and_tells_once(sink: Recorder, clock: Clock) -> None:
    seal(1)
    for _ in range(3):
        sink.answers = [REFUSING]
        run(sink, clock)
        assert cursor().due_at >= clock.now + timedelta(minutes=15)
        clock.now = cursor().due_at
    assert alerts() == [("delivery_refused", "http_400", "Sink/siem")]
    assert run(sink, clock).is_caught_up


def test_deliver_halves_the_batch_until_what_is_refused_stands_alone(sink: Recorder, clock: Clock) -> None:
    """Nothing that comes before it waits for it, and nothing is skipped."""
    seal(20)
    bad = sealed_order()[5]

    class Picky(Recorder):
        def send(self, items: Sequence[LogItem], *, timeout_seconds: float) -> SendResult:
            if bad in [name_of(item) for item in items]:
                self.batches.append(len(items))
                return REFUSING
            return super().send(items, timeout_seconds=timeout_seconds)

    picky = Picky()
    for _ in range(12):
        run(picky, clock, batch=16)
        clock.now = cursor().due_at
    assert picky.received == sealed_order()[:5]
    assert picky.batches[-1] == 1
    assert run(sink, clock).is_caught_up
    assert picky.received + sink.received == sealed_order()


def test_deliver_while_another_has_the_lease_sends_nothing(sink: Recorder, clock: Clock) -> None:
    seal(3)
    other = Recorder()
    sink.during = lambda: run(other, clock)
    assert run(sink, clock).is_caught_up
    assert other.batches == []


def test_deliver_that_lost_its_lease_writes_nothing(sink: Recorder, clock: Clock) -> None:
    """It was suspended for longer than the lease; another went on meanwhile."""
    seal(3)
    other = Recorder()

    def be_overtaken() -> None:
        clock.now += LEASE_DURATION
        assert run(other, clock).is_caught_up

    sink.during = be_overtaken
    assert run(sink, clock) == DeliveryResult()
    assert (cursor().tree_size, cursor().attempts, cursor().last_fault) == (3, 0, "")
    assert other.received == sealed_order()


def test_deliver_that_lost_its_lease_and_failed_disturbs_nobody(sink: Recorder, clock: Clock) -> None:
    seal(3)

    def be_overtaken() -> None:
        clock.now += LEASE_DURATION
        assert run(Recorder(), clock).is_caught_up

    sink.during = be_overtaken
    sink.answers = [REFUSING]
    run(sink, clock)
    assert (cursor().tree_size, cursor().last_fault, alerts()) == (3, "", [])


def test_deliver_by_four_at_once_keeps_the_order(sink: Recorder, clock: Clock) -> None:
    for _ in range(10):
        seal(5)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                run(sink, clock, batch=3, seconds=0)
        except BaseException as error:  # noqa: BLE001 -- told below
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


def test_deliver_that_dies_before_the_cursor_is_written_repeats_and_loses_nothing(file: Path, clock: Clock) -> None:
    seal(6)
    script = Path(__file__).with_name("killed_delivery_process.py")
    environment = child_environment(os.environ, settings.DATABASES)
    environment["PYTHONPATH"] = str(Path(__file__).parents[3])
    connections.close_all()
    ended = subprocess.run([sys.executable, script, file], env=environment, check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    sink = create_sink(parse_sink("siem", {"type": "file", "path": str(file)}), hostname="s")
    assert deliver("siem", sink, clock=clock, seconds=5) == DeliveryResult()  # the dead one's lease
    clock.now += LEASE_DURATION
    assert deliver("siem", sink, clock=clock, seconds=5).accepted == 7
    lines = file.read_text().splitlines()
    assert lines[4] == '{"half": '
    names = [json.loads(line) for line in lines[:4] + lines[5:]]
    received = [each.get("id", f"checkpoint-1-{each.get('tree_size')}") for each in names]
    assert received == sealed_order()[:4] + sealed_order()
    assert first_receipts(received) == sealed_order()


def test_deliver_of_a_restored_log_sends_nothing_and_tells_once(sink: Recorder, clock: Clock) -> None:
    seal(2)
    SinkCursor.objects.create(name="siem", tree_size=9, checkpoint_size=9, epoch=1, leaf_hash=digest("l"), due_at=NOW)
    for _ in range(2):
        assert run(sink, clock).fault == "log_behind_sink"
        clock.now = cursor().due_at
    assert (sink.batches, alerts()) == ([], [("delivery_stopped", "log_behind_sink", "Sink/siem")])


def test_deliver_of_a_log_that_vanished_sends_nothing(sink: Recorder, clock: Clock) -> None:
    SinkCursor.objects.create(name="siem", tree_size=9, checkpoint_size=9, epoch=1, leaf_hash=digest("l"), due_at=NOW)
    assert run(sink, clock).fault == "log_behind_sink"


def test_deliver_of_a_new_epoch_goes_back_to_where_it_begins(sink: Recorder, clock: Clock) -> None:
    """The sink had nine events; four were in the backup; the operator has declared it."""
    seal(4)
    run(sink, clock)
    lost = {"tree_size": 9, "checkpoint_size": 9, "leaf_hash": digest("lost"), "root_hash": digest("lost")}
    SinkCursor.objects.update(**lost)
    seal(3, epoch=2)
    assert run(sink, clock, batch=2).is_caught_up
    seal(6, epoch=2)
    assert run(sink, clock, batch=2).is_caught_up
    assert sink.received == sealed_order()


def test_deliver_of_a_log_that_went_on_without_what_only_events_told_goes_back_to_the_checkpoint(
    sink: Recorder, clock: Clock
) -> None:
    """Events of a checkpoint that was never delivered are lost: the sealer may go on, and nothing new is skipped."""
    seal(4)
    run(sink, clock)
    SinkCursor.objects.update(tree_size=6, leaf_hash=digest("lost"))
    seal(5)
    assert run(sink, clock).is_caught_up
    assert sink.received == sealed_order()


def test_deliver_of_a_log_with_another_past_stops_and_tells(sink: Recorder, clock: Clock) -> None:
    seal(4)
    run(sink, clock)
    SinkCursor.objects.update(root_hash=digest("another"), leaf_hash=digest("another"))
    seal(2)
    assert run(sink, clock) == DeliveryResult(fault="log_forked")
    assert alerts() == [("delivery_stopped", "log_forked", "Sink/siem")]


def test_deliver_stops_at_a_leaf_without_its_event_and_tells_once(sink: Recorder, clock: Clock) -> None:
    seal(2)
    missing = finished()
    AuditLeaf.objects.create(leaf_index=2, event_id=missing.event.id, leaf_hash=digest("missing"))
    checkpoint(3)
    seal(2)
    for _ in range(2):
        assert run(sink, clock).fault == "event_missing"
        assert cursor().due_at >= clock.now + timedelta(minutes=15)
        clock.now = cursor().due_at
    assert (sink.received, cursor().tree_size) == (sealed_ids(2), 2)
    assert alerts() == [("delivery_stopped", "event_missing", "Sink/siem")]


def sealed_ids(size: int) -> list[str]:
    """Return the first size events, and the checkpoint of that size."""
    leaves = AuditLeaf.objects.filter(leaf_index__lt=size).order_by("leaf_index")
    return [*(str(leaf.event_id) for leaf in leaves), f"checkpoint-1-{size}"]


@pytest.mark.parametrize("damage", [{"detail": "{"}, {"detail": "[]"}, {"detail": "[" * 9999}, {"outcome": "perhaps"}])
def test_deliver_stops_at_an_event_that_no_format_can_tell(
    sink: Recorder, clock: Clock, damage: dict[str, str]
) -> None:
    seal(1)
    damaged = finished()
    fields = {**damaged.event._asdict(), **damage}
    AuditEvent.objects.create(**fields, mac=damaged.mac)
    AuditLeaf.objects.create(leaf_index=1, event_id=damaged.event.id, leaf_hash=digest("damaged"))
    checkpoint(2)
    assert run(sink, clock) == DeliveryResult(accepted=2, fault="event_unreadable")
    assert alerts() == [("delivery_stopped", "event_unreadable", "Sink/siem")]


@pytest.mark.parametrize("value", ["infinity", "2026-11-24 16:05:09+00 BC"])
@pytest.mark.postgresql
def test_deliver_stops_at_an_event_that_no_model_can_hold_and_sends_those_before_it(
    sink: Recorder, clock: Clock, value: str
) -> None:
    seal(5)
    victim = AuditLeaf.objects.get(leaf_index=3).event_id
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute("ALTER TABLE django_phi_oidc_auditevent DISABLE TRIGGER ALL")
        cursor.execute("UPDATE django_phi_oidc_auditevent SET occurred_at = %s WHERE id = %s", [value, victim])
        cursor.execute("ALTER TABLE django_phi_oidc_auditevent ENABLE TRIGGER ALL")
    assert run(sink, clock).fault == "event_unreadable"
    assert sink.received == sealed_ids(3)[:3]
    assert alerts() == [("delivery_stopped", "event_unreadable", "Sink/siem")]


def test_deliver_while_the_trail_is_away_comes_back_soon(sink: Recorder, clock: Clock) -> None:
    seal(1)

    def fail(*args: Any) -> Any:
        raise OperationalError

    for _ in range(6):
        with connections["phi_audit"].execute_wrapper(fail):
            assert run(sink, clock) == DeliveryResult(fault="audit_unavailable")
        assert cursor().due_at <= clock.now + timedelta(seconds=10)
        clock.now = cursor().due_at
    assert run(sink, clock).is_caught_up


def test_deliver_stops_at_a_gap_between_leaves(sink: Recorder, clock: Clock) -> None:
    seal(2)
    checkpoint(4)
    assert run(sink, clock).fault == "event_missing"
    assert cursor().tree_size == 2


def test_deliver_of_checkpoints_leaves_the_largest_as_witness(sink: Recorder, clock: Clock) -> None:
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


@pytest.mark.parametrize(("known", "kept"), [("1", "2"), ("2", "2"), ("9", "9"), ("10", "10"), ("what", "2")])
def test_deliver_keeps_a_witness_that_is_larger(sink: Recorder, clock: Clock, known: str, kept: str) -> None:
    AuditWitness.objects.create(origin="portal.example/audit", note=f"portal.example/audit\n{known}\n")
    seal(2)
    run(sink, clock)
    assert AuditWitness.objects.get().note.split("\n")[1] == kept


def test_deliver_of_events_alone_is_no_witness(sink: Recorder, clock: Clock) -> None:
    seal(2)
    sink.answers = [SendResult(accepted=2, fault="http_500")]
    run(sink, clock)
    assert not AuditWitness.objects.exists()


def test_watch_lag_tells_once_for_each_lag(sink: Recorder, clock: Clock) -> None:
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


def test_watch_lag_of_a_sink_that_had_all_for_a_moment_begins_anew(sink: Recorder, clock: Clock) -> None:
    """On a busy portal there is always something new when one looks."""
    seal(1)
    clock.go_on(minutes=10)
    check_lag("siem", lag_alert=LATE, now=clock.now)
    assert run(sink, clock).is_caught_up
    seal(1, sealed_at=clock.now)
    assert not check_lag("siem", lag_alert=LATE, now=clock.now)
    clock.go_on(minutes=10)
    check_lag("siem", lag_alert=LATE, now=clock.now)
    assert len(alerts()) == 2


def test_watch_lag_tells_in_the_back_off_and_why(sink: Recorder, clock: Clock) -> None:
    seal(1)
    sink.answers = [REFUSING]
    run(sink, clock)
    clock.go_on(minutes=5)
    assert run(sink, clock) == DeliveryResult()  # not due
    assert check_lag("siem", lag_alert=LATE, now=clock.now)
    assert alerts()[1] == ("delivery_lag", "http_400", "Sink/siem")


def test_alerts_leave_no_event_behind_when_the_cursor_is_not_written(sink: Recorder, clock: Clock) -> None:
    seal(1)
    sink.answers = [REFUSING]
    sink.during = lambda: SinkCursor.objects.update(attempts=7)
    run(sink, clock)
    assert (alerts(), AuditOutbox.objects.count()) == ([], 0)


def test_make_due_ends_the_back_off(sink: Recorder, clock: Clock) -> None:
    seal(1)
    sink.answers = [REFUSING]
    run(sink, clock)
    make_due_now(["siem"], now=clock.now)
    assert run(sink, clock).is_caught_up


def test_delivered_lines_prove_the_log_without_the_database(file: Path, clock: Clock) -> None:
    """What the sealer signed is recomputed from the file alone: each MAC, each leaf, each root, each signature."""
    key = Ed25519PrivateKey.generate()
    for start in (0, 3):
        insert_events([finished(now=NOW + timedelta(seconds=start + number)) for number in range(3)])
        sequencer.append_to_log(key=key, now=clock.now)
        clock.go_on(seconds=10)
    sink = create_sink(parse_sink("siem", {"type": "file", "path": str(file)}), hostname="s")
    assert deliver("siem", sink, clock=clock, seconds=5).accepted == 8
    macs = {each.id: each.material for each in keyring.get_keys("AUDIT_MAC_KEYS")}
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
