"""Every committed event gets one leaf, a checkpoint is signed, and a log that does not continue is not signed."""

import json
import stat
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import IntegrityError, connections, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.errors import CheckpointInvalid, SealingRefused
from django_phi_oidc.audit.events import Action, AuthenticatedEvent, NewEvent, Origin, canonical_bytes, compute_mac
from django_phi_oidc.audit.log.findings import VerificationSummary
from django_phi_oidc.audit.log.recovery import resume_log
from django_phi_oidc.audit.log.sequencer import (
    BATCH_SIZE,
    append_all_to_log,
    append_to_log,
    count_overdue_events,
    count_unqueued_events,
)
from django_phi_oidc.audit.log.signing_keys import find_signing_key, get_checkpoint_origin, get_public_keys
from django_phi_oidc.audit.log.verifier import verify_log
from django_phi_oidc.audit.merkle.checkpoint import (
    Checkpoint,
    encode_verifier_key,
    sign_checkpoint,
    verify_checkpoint,
)
from django_phi_oidc.audit.merkle.compact import CompactRange
from django_phi_oidc.audit.models import (
    AppendOnlyError,
    AuditCheckpoint,
    AuditEvent,
    AuditLeaf,
    AuditNode,
    AuditUnsealed,
    AuditWitness,
)
from django_phi_oidc.audit.storage import authenticate_event, insert_events, parse_event_row
from django_phi_oidc.audit.tasks import seal as seal_task
from django_phi_oidc.crypto import keyring
from django_phi_oidc.errors import AuditUnavailable, KeyMissing
from tests.support.audit_log import KEY, NOW, OTHER_KEY, PEM, events, seal_now, sealed
from tests.support.audit_tampering import (
    CHECKPOINT,
    DROPPED_ROWS,
    LEAF,
    NODE,
    QUEUE,
    DropRows,
    dropping_trigger,
    executed,
    sql,
    without_triggers,
)
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.rfc6962_reference import mth

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
LATER = NOW + timedelta(hours=1)


def with_options(**options: object) -> override_settings:
    return override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, **options))


def test_new_events_become_leaves_under_a_signed_root() -> None:
    ids = sealed(5) + sealed(3)
    assert list(AuditLeaf.objects.values_list("leaf_index", "event_id")) == list(enumerate(ids))
    assert AuditUnsealed.objects.count() == 0
    last = AuditCheckpoint.objects.last()
    signed = verify_checkpoint(last.note, [KEY.public_key()], expected_origin="phi-oidc-audit")
    leaves = tuple(canonical_bytes(parse_event_row(AuditEvent.objects.get(id=id_)).event) for id_ in ids)
    assert (signed.tree_size, signed.root_hash) == (8, mth(leaves))
    assert [row.tree_size for row in AuditCheckpoint.objects.all()] == [5, 8]


def test_no_checkpoint_is_written_without_new_events() -> None:
    sealed(2)
    assert seal_now().note == ""
    assert AuditCheckpoint.objects.count() == 1


def test_nodes_of_perfect_subtrees_are_stored() -> None:
    for _ in range(3):
        sealed(200)
    assert list(AuditNode.objects.values_list("level", "node_index")) == [(8, 0), (8, 1)]
    assert AuditLeaf.objects.count() == 600


@pytest.mark.parametrize("before", [1, 1000])
def test_number_of_statements_does_not_grow_with_the_log(before: int) -> None:
    sealed(before)
    events(3)
    with CaptureQueriesContext(connections["phi_audit"]) as queries:
        assert seal_now().event_count == 3
    # In addition, one per stored level with nodes on the right edge of the tree.
    edge = sum(query["sql"].lower().count("select") for query in queries if '_auditnode"' in query["sql"])
    assert edge <= before.bit_count()
    assert len(queries) <= 19 + before.bit_count()


def test_large_queue_is_sealed_in_several_transactions() -> None:
    events(25)
    counts = [seal_now(limit=10).event_count for _ in range(4)]
    assert counts == [10, 10, 5, 0]
    assert [row.tree_size for row in AuditCheckpoint.objects.all()] == [10, 20, 25]
    assert BATCH_SIZE >= 10_000
    assert [result.event_count for result in append_all_to_log(key=KEY, clock=lambda: NOW)] == [0]


def test_event_that_commits_late_is_sealed_after_a_newer_one() -> None:
    (younger,) = sealed(1, at=NOW)
    (late,) = sealed(1, at=NOW - timedelta(hours=2))
    assert [AuditLeaf.objects.get(event_id=id_).leaf_index for id_ in (younger, late)] == [0, 1]


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row.save(),
        lambda row: row.delete(),
        lambda row: type(row).objects.update(pk=7),
        lambda row: type(row).objects.all().delete(),
    ],
)
@pytest.mark.parametrize("model", [AuditLeaf, AuditNode, AuditCheckpoint])
def test_change_of_the_log_by_a_model_is_refused(model: type, change: Callable[[object], object]) -> None:
    sealed(256)
    with pytest.raises(AppendOnlyError):
        change(model.objects.first())
    assert model.objects.count() == {AuditLeaf: 256, AuditNode: 1, AuditCheckpoint: 1}[model]


UNSIGNABLE = {
    "additional leaf": lambda: sql(f"INSERT INTO {LEAF} SELECT 5, %s, leaf_hash FROM {LEAF} LIMIT 1", uuid.UUID(int=7)),
    "missing leaf": lambda: sql(f"DELETE FROM {LEAF} WHERE leaf_index = 4"),
    "altered leaf": lambda: sql(f"UPDATE {LEAF} SET leaf_hash = %s WHERE leaf_index = 4", b"\x01" * 32),
    "missing leaf in the middle": lambda: sql(f"DELETE FROM {LEAF} WHERE leaf_index = 3"),
    "altered note": lambda: sql(f"UPDATE {CHECKPOINT} SET note = 'x'"),
    "missing checkpoint": lambda: sql(f"DELETE FROM {CHECKPOINT}"),
}


@pytest.mark.parametrize("tamper", UNSIGNABLE.values(), ids=UNSIGNABLE)
def test_altered_log_is_not_continued_and_stays_unchanged(tamper: Callable[[], object]) -> None:
    sealed(5)
    events(2)
    with without_triggers():
        tamper()
    leaves = AuditLeaf.objects.count()
    with pytest.raises(SealingRefused):
        seal_now()
    assert (AuditLeaf.objects.count(), AuditUnsealed.objects.count()) == (leaves, 2)


def test_log_with_an_altered_node_is_not_continued() -> None:
    sealed(257)
    events(1)
    with without_triggers():
        for changed in (b"\x01" * 32, b"\x01" * 31, b""):
            sql(f"UPDATE {NODE} SET node_hash = %s", changed)
            with pytest.raises(SealingRefused):
                seal_now()


def test_log_with_another_origin_is_not_continued() -> None:
    sealed(1)
    events(1)
    with with_options(AUDIT={"origin": "another.example/audit"}), pytest.raises(SealingRefused, match="origin"):
        seal_now()
    assert seal_now().event_count == 1


def cut_to(size: int) -> None:
    """Remove leaves and checkpoints beyond a size."""
    with without_triggers():
        sql(f"DELETE FROM {LEAF} WHERE leaf_index >= %s", size)
        sql(f"DELETE FROM {CHECKPOINT} WHERE tree_size > %s", size)


def test_restored_log_is_refused_because_of_the_witness_file(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    with with_options(AUDIT={"witness_file": str(witness)}):
        sealed(3)
        assert witness.read_text() == AuditCheckpoint.objects.last().note
        sealed(2)
        note = witness.read_text()
        assert note == AuditCheckpoint.objects.last().note
        cut_to(3)
        events(5)
        with pytest.raises(SealingRefused, match="5 events is known outside"):
            seal_now()
        assert witness.read_text() == note
    # Without the file it signs another root for the same size, which must not happen.
    assert seal_now(limit=2).event_count == 2
    with with_options(AUDIT={"witness_file": str(witness)}), pytest.raises(SealingRefused, match="known outside"):
        seal_now()


@pytest.mark.parametrize("text", ["", "rubbish", "phi-oidc-audit\n3\n"])
def test_unreadable_witness_file_prevents_sealing(text: str, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    witness.write_text(text)
    events(1)
    with with_options(AUDIT={"witness_file": str(witness)}), pytest.raises(SealingRefused, match="witness"):
        seal_now()
    assert witness.read_text() == text
    witness.unlink()
    with with_options(AUDIT={"witness_file": str(witness)}):
        assert seal_now().event_count == 1


def test_unwritable_witness_file_is_logged_and_sealing_succeeds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    events(1)
    with with_options(AUDIT={"witness_file": str(tmp_path / "none" / "witness")}):
        assert seal_now().event_count == 1
    assert "The witness file can't be written." in caplog.text


def note_of(name: str, size: int, key: Any = KEY) -> str:
    return sign_checkpoint(Checkpoint(origin=name, tree_size=size, root_hash=bytes(32)), key)


def test_log_smaller_than_a_checkpoint_of_a_sink_is_not_continued() -> None:
    sealed(3)
    sealed(2)
    AuditWitness.objects.create(origin="phi-oidc-audit", note=AuditCheckpoint.objects.last().note)
    # Notes signed by other keys, and notes of other logs, are ignored.
    AuditWitness.objects.create(origin="phi-oidc-audit/epoch-2", note=note_of("phi-oidc-audit/epoch-2", 9, OTHER_KEY))
    AuditWitness.objects.create(origin="other", note=note_of("other", 99))
    AuditWitness.objects.create(origin="rubbish", note="rubbish")
    assert sealed(1)
    cut_to(3)
    with pytest.raises(SealingRefused, match="known outside"):
        seal_now()


def test_epoch_older_than_a_witnessed_one_is_not_continued() -> None:
    """A backup from before a restore was restored again."""
    sealed(3)
    AuditWitness.objects.create(origin="phi-oidc-audit/epoch-2", note=note_of("phi-oidc-audit/epoch-2", 4))
    events(1)
    with pytest.raises(SealingRefused, match="of phi-oidc-audit/epoch-2"):
        seal_now()
    with pytest.raises(SealingRefused, match="larger checkpoint"):
        resume_log(witnessed_note=note_of("phi-oidc-audit", 9), reason="x", key=KEY, now=NOW)
    resume_log(witnessed_note=note_of("phi-oidc-audit/epoch-2", 4), reason="x", key=KEY, now=NOW)
    assert AuditCheckpoint.objects.last().epoch == 3
    assert seal_now().event_count == 1


def test_resume_with_a_checkpoint_of_another_key_or_log_is_refused() -> None:
    sealed(3)
    for key, name in ((OTHER_KEY, "phi-oidc-audit"), (KEY, "another"), (KEY, "phi-oidc-audit/epoch-02")):
        with pytest.raises(CheckpointInvalid):
            resume_log(witnessed_note=note_of(name, 9, key), reason="x", key=KEY, now=NOW)
    assert "epoch-2" in resume_log(witnessed_note=note_of("phi-oidc-audit", 9), reason="x", key=KEY, now=NOW)
    (restored,) = AuditEvent.objects.filter(action="audit.restored")
    assert json.loads(restored.detail)["tree_size"] == 9
    assert AuditLeaf.objects.last().event_id == restored.id


def test_resume_twice_opens_the_third_epoch() -> None:
    sealed(3)
    for epoch in (2, 3):
        resume_log(witnessed_note=note_of(get_checkpoint_origin(epoch - 1), 99), reason="x", key=KEY, now=NOW)
        assert AuditCheckpoint.objects.last().epoch == epoch
    assert sealed(1)
    assert AuditCheckpoint.objects.last().note.startswith("phi-oidc-audit/epoch-3\n")


def test_seal_task_seals_with_the_key_and_alerts_without_it() -> None:
    events(3)
    with with_options(KEYS={"audit_signing": None}), clock.override_clock(lambda: LATER):
        seal_task()
        seal_task()
    (alert,) = AuditEvent.objects.filter(action="alert.raised")
    assert json.loads(alert.detail) == {"rule": "sealing_lag", "count": 3}
    with with_options(KEYS={"audit_signing": PEM}), clock.override_clock(lambda: LATER):
        seal_task()
    assert AuditLeaf.objects.count() == 4
    assert AuditEvent.objects.count() == 4


def fail() -> str:
    raise ConnectionError("the key service is sealed")


@pytest.mark.parametrize("source", [Path("/nonexistent/key.pem"), fail, "x"], ids=["no file", "callable", "no key"])
def test_seal_task_with_an_unreadable_key_alerts_and_seals_when_it_is_back(source: object) -> None:
    events(3)
    with with_options(KEYS={"audit_signing": source}), clock.override_clock(lambda: LATER):
        for _ in range(2):
            with pytest.raises(KeyMissing):
                seal_task()
    (alert,) = AuditEvent.objects.filter(action="alert.raised")
    assert json.loads(alert.detail) == {"rule": "sealing_lag", "count": 3}
    with with_options(KEYS={"audit_signing": PEM}), clock.override_clock(lambda: LATER):
        seal_task()
    assert (AuditLeaf.objects.count(), AuditUnsealed.objects.count()) == (4, 0)


def test_seal_task_alerts_although_another_count_fails() -> None:
    events(3)
    with (
        executed(f"ALTER TABLE {LEAF} RENAME TO away", f"ALTER TABLE away RENAME TO {LEAF}"),
        with_options(KEYS={"audit_signing": None}),
        clock.override_clock(lambda: LATER),
        pytest.raises(AuditUnavailable),
    ):
        seal_task()
    rules = {json.loads(alert.detail)["rule"] for alert in AuditEvent.objects.filter(action="alert.raised")}
    assert "sealing_lag" in rules


def test_seal_task_whose_key_callable_hangs_holds_up_no_other_worker() -> None:
    called, over, results = threading.Event(), threading.Event(), list[str]()

    def hang_once() -> str:
        if not called.is_set():
            called.set()
            over.wait(30)
        return PEM

    def seal_in_thread() -> None:
        try:
            seal_task()
            results.append("sealed")
        finally:
            connections.close_all()

    events(3)
    with with_options(KEYS={"audit_signing": hang_once}), clock.override_clock(lambda: LATER):
        hanging = threading.Thread(target=seal_in_thread)
        hanging.start()
        assert called.wait(30)
        seal_task()
        assert (AuditLeaf.objects.count(), results) == (3, [])
        over.set()
        hanging.join(30)
    assert results == ["sealed"]
    assert (AuditLeaf.objects.count(), AuditUnsealed.objects.count()) == (3, 0)


def test_seal_task_alerts_after_five_minutes_and_again_after_an_hour() -> None:
    events(1)
    assert count_overdue_events(now=NOW + timedelta(minutes=4)) == 0
    for minutes, alerts in ((4, 0), (6, 1), (65, 1), (67, 2)):
        with (
            with_options(KEYS={"audit_signing": None}),
            clock.override_clock(lambda minutes=minutes: NOW + timedelta(minutes=minutes)),
        ):
            seal_task()
        assert AuditEvent.objects.filter(action="alert.raised").count() == alerts


def test_refused_seal_task_alerts_despite_a_forged_alert() -> None:
    sealed(3)
    events(1)
    cut_to(0)
    (forged,) = events(1, action="alert.raised", detail={"rule": "sealing_refused"})
    with without_triggers():
        sql("DELETE FROM phi_oidc_audit_auditleaf")
        sql(f"INSERT INTO {LEAF} VALUES (7, %s, %s)", uuid.UUID(int=7), bytes(32))
        sql("UPDATE phi_oidc_audit_auditevent SET actor = 'x' WHERE id = %s", forged)
    with with_options(KEYS={"audit_signing": PEM}), clock.override_clock(lambda: NOW + timedelta(minutes=1)):
        for _ in range(2):
            with pytest.raises(SealingRefused):
                seal_task()
    assert AuditEvent.objects.filter(action="alert.raised").exclude(id=forged).count() == 1


def test_checkpoint_signed_by_another_key_is_not_continued() -> None:
    """An attacker with INSERT could add a leaf and a checkpoint, and have the next one signed over them."""
    sealed(3)
    forged = events(1)[0]
    with without_triggers():
        sql("DELETE FROM phi_oidc_audit_auditunsealed")
    leaf = AuditLeaf.objects.create(leaf_index=3, event_id=forged, leaf_hash=bytes(32))
    tree = CompactRange()
    tree.extend([bytes(leaf.leaf_hash) for leaf in AuditLeaf.objects.all()])
    note = sign_checkpoint(Checkpoint(origin="phi-oidc-audit", tree_size=4, root_hash=tree.compute_root()), OTHER_KEY)
    AuditCheckpoint.objects.create(tree_size=4, root_hash=tree.compute_root(), epoch=1, sealed_at=NOW, note=note)
    events(1)
    with pytest.raises(SealingRefused, match="not signed by a known key"):
        seal_now()
    assert leaf.leaf_index == 3


def test_log_with_a_premature_node_is_not_continued() -> None:
    sealed(1)
    AuditNode.objects.create(level=8, node_index=0, node_hash=bytes(32))
    events(256)
    with pytest.raises(SealingRefused, match="damaged"):
        seal_now()


def test_negative_leaf_index_is_refused_by_the_database() -> None:
    with pytest.raises(IntegrityError):
        AuditLeaf.objects.create(leaf_index=-1, event_id=uuid.UUID(int=7), leaf_hash=bytes(32))
    with pytest.raises(IntegrityError):
        AuditCheckpoint.objects.create(tree_size=0, root_hash=b"", epoch=1, sealed_at=NOW, note="")


def test_retry_finds_an_event_that_is_missing_in_the_queue() -> None:
    (id_,) = events(1)
    sql(f"DELETE FROM {QUEUE}")
    assert [result.event_count for result in append_all_to_log(key=KEY, clock=lambda: NOW)] == [0]
    assert sum(result.event_count for result in append_all_to_log(key=KEY, clock=lambda: NOW, retry_refused=True)) == 1
    assert AuditLeaf.objects.get().event_id == id_


def test_many_forged_events_are_all_marked_as_refused() -> None:
    events(1100)
    with without_triggers():
        sql("UPDATE phi_oidc_audit_auditevent SET actor = 'x'")
    assert seal_now().refused_count == 1100
    assert AuditUnsealed.objects.filter(refused=True).count() == 1100


# In one transaction, because a temporary table belongs to one connection of the server.
@pytest.mark.postgresql
@pytest.mark.django_db(databases=["default", "phi_audit"])
def test_queue_cannot_be_shadowed_by_a_temporary_table() -> None:
    sql("CREATE TEMP TABLE phi_oidc_audit_auditunsealed (event_id uuid, refused boolean)")
    events(1)
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM public.phi_oidc_audit_auditunsealed")
        assert cursor.fetchone() == (1,)


def test_queue_is_filled_by_the_database_in_the_same_transaction() -> None:
    ids = events(1)
    assert list(AuditUnsealed.objects.values_list("event_id", "refused")) == [(ids[0], False)]
    with transaction.atomic(using="phi_audit"):
        sql(f"DELETE FROM {QUEUE}")
        transaction.set_rollback(True, using="phi_audit")
    assert AuditUnsealed.objects.count() == 1


def test_e9_sealed_event_that_is_queued_again_gets_no_second_leaf_and_stops_nothing() -> None:
    (id_,) = sealed(1)
    AuditUnsealed.objects.create(event_id=id_)
    events(1)
    assert seal_now().event_count == 1
    assert (AuditUnsealed.objects.count(), AuditLeaf.objects.count()) == (0, 2)


@pytest.mark.parametrize("source", ["", "x", PEM.replace("M", "N", 1), Path("/nonexistent/key.pem")])
def test_unreadable_signing_key_raises_and_empty_setting_is_none(source: object) -> None:
    with with_options(KEYS={"audit_signing": source}):
        if source == "":
            assert find_signing_key() is None
            with pytest.raises(KeyMissing, match="nothing can be verified"):
                get_public_keys()
        else:
            with pytest.raises(KeyMissing, match="audit_signing"):
                find_signing_key()


def test_signing_key_is_read_from_text_file_and_callable(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text(PEM)
    for source in (PEM, file, lambda: PEM):
        with with_options(KEYS={"audit_signing": source}):
            assert find_signing_key().private_bytes_raw() == KEY.private_bytes_raw()


@pytest.mark.parametrize("name", ["", "with space", "with+plus", "line\nbreak", 7])
def test_invalid_origin_raises(name: object) -> None:
    with with_options(AUDIT={"origin": name}), pytest.raises(KeyMissing):
        get_checkpoint_origin(1)
    assert get_checkpoint_origin(1) == "phi-oidc-audit"


def test_witness_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    with with_options(AUDIT={"witness_file": str(tmp_path / "witness")}):
        sealed(1)
    assert stat.S_IMODE((tmp_path / "witness").stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["witness"]


INVALID_EVENTS = {
    "an unknown outcome": {"outcome": "x"},
    "detail of brackets": {"detail": "[" * 100_000},
    "nested detail": {"detail": '{"claim":{"a":"b"}}'},
    "a restore": {"action": "audit.restored"},
    "p7 an archive": {"action": "audit.archived", "detail": '{"archived_size":1}'},
    "p1 a time in the year 9999": {"occurred_at": datetime(9999, 12, 29, tzinfo=UTC)},
    "p1 claims that are numbers": {"action": "claim.overfetched", "detail": '{"claims":[1]}'},
    "p3 a time a day before its id": {"occurred_at": NOW - timedelta(days=1)},
    "p3 a text instead of a number": {"action": "session.ended", "detail": '{"tokens":"2"}'},
    "p3 a number instead of a text": {"detail": '{"claim":7}'},
    "p3 true instead of a number": {"action": "session.ended", "detail": '{"tokens":true}'},
}


@pytest.mark.parametrize(("ahead", "sealed_at_once"), [(timedelta(seconds=59), True), (timedelta(seconds=61), False)])
def test_p3_event_ahead_of_the_clock_is_sealed_when_its_time_has_come(ahead: timedelta, sealed_at_once: bool) -> None:
    """The clock of a web server may be wrong. Nothing is lost, and there is no alert."""
    (event_id,) = events(1, at=NOW + ahead)
    first = seal_now(at=NOW)
    assert (first.event_count, first.refused_count) == (int(sealed_at_once), 0)
    assert count_overdue_events(now=NOW + timedelta(minutes=5)) == 0
    second = seal_now(at=NOW + ahead)
    assert (second.event_count, second.refused_count) == (int(not sealed_at_once), 0)
    assert AuditLeaf.objects.get().event_id == event_id
    assert not AuditEvent.objects.filter(action="alert.raised").exists()


@pytest.mark.parametrize("mac_is_valid", [True, False])
def test_p3_event_with_the_lowest_id_is_sealed_or_refused(mac_is_valid: bool) -> None:
    key = keyring.get_keys("audit_mac")[0]
    first = datetime(1970, 1, 1, tzinfo=UTC)
    event = authenticate_event(NewEvent(Action.CLAIM_REVEALED, Origin(), first)).event._replace(id=uuid.UUID(int=0))
    mac = compute_mac(event, key.material) if mac_is_valid else bytes(32)
    insert_events([AuthenticatedEvent(event, mac)])
    result = seal_now(at=NOW)
    assert (result.event_count, result.refused_count) == (int(mac_is_valid), int(not mac_is_valid))
    again = list(append_all_to_log(key=KEY, clock=lambda: NOW, retry_refused=True))
    assert sum(each.refused_count for each in again[:1]) == int(not mac_is_valid)
    assert count_overdue_events(now=NOW) == 0


def test_p3_forged_event_ahead_of_the_clock_is_refused_at_once() -> None:
    event = authenticate_event(NewEvent(Action.CLAIM_REVEALED, Origin(), NOW + timedelta(hours=1))).event
    insert_events([AuthenticatedEvent(event, bytes(32))])
    assert seal_now(at=NOW).refused_count == 1
    (alert,) = AuditEvent.objects.filter(action="alert.raised")
    assert json.loads(alert.detail) == {"rule": "event_forged", "count": 1}


def test_p3_event_ahead_of_the_clock_does_not_delay_others() -> None:
    events(1, at=NOW + timedelta(hours=1))
    for number in range(3):
        assert events(2, at=NOW + timedelta(seconds=number))
        assert seal_now(at=NOW + timedelta(seconds=number), limit=2).event_count == 2


@pytest.mark.parametrize(("ahead", "refused"), [(timedelta(hours=23), 0), (timedelta(hours=25), 1)])
def test_p3_event_more_than_a_day_ahead_is_refused_with_an_alert(ahead: timedelta, refused: int) -> None:
    (event_id,) = events(1, at=NOW + ahead)
    result = seal_now(at=NOW)
    assert (result.event_count, result.refused_count) == (0, refused)
    alerts = AuditEvent.objects.filter(action="alert.raised")
    assert [alert.resource for alert in alerts] == [f"AuditEvent/{event_id}"] * refused


@pytest.mark.parametrize("change", INVALID_EVENTS.values(), ids=INVALID_EVENTS)
def test_e3_event_that_is_none_is_set_aside_with_an_alert_though_its_mac_is_valid(change: dict[str, Any]) -> None:
    valid = authenticate_event(NewEvent(Action.CLAIM_REVEALED, Origin(), NOW, detail={"claim": "address"})).event
    invalid = valid._replace(id=uuid.UUID(int=valid.id.int + 1), **change)
    key = keyring.get_keys("audit_mac")[0].material
    insert_events([AuthenticatedEvent(event, compute_mac(event, key)) for event in (invalid, valid)])
    result = seal_now()
    assert (result.event_count, result.refused_count) == (1, 1)
    assert list(AuditLeaf.objects.values_list("event_id", flat=True)) == [valid.id]
    (alert,) = AuditEvent.objects.filter(action="alert.raised")
    assert (alert.resource, json.loads(alert.detail)) == (
        f"AuditEvent/{invalid.id}",
        {"rule": "event_invalid", "count": 1},
    )
    assert (seal_now().event_count, seal_now().event_count) == (1, 0)
    assert AuditUnsealed.objects.get().event_id == invalid.id
    again = list(append_all_to_log(key=KEY, clock=lambda: NOW, retry_refused=True))
    assert (sum(result.event_count for result in again), again[0].refused_count) == (0, 1)


@pytest.mark.parametrize("table", ["auditleaf", "auditcheckpoint", "auditnode"])
def test_e4_nothing_is_sealed_if_the_database_stores_no_row(table: str) -> None:
    sealed(1)
    events(256)
    with dropping_trigger(table), pytest.raises(SealingRefused):
        seal_now()
    assert (AuditLeaf.objects.count(), AuditCheckpoint.objects.count(), AuditUnsealed.objects.count()) == (1, 1, 256)
    assert seal_now().event_count == 256


@pytest.mark.parametrize("drop_rows", DROPPED_ROWS.values(), ids=DROPPED_ROWS)
def test_e4_forged_event_is_not_set_aside_without_its_alert(drop_rows: DropRows) -> None:
    events(1)
    with without_triggers():
        sql("UPDATE phi_oidc_audit_auditevent SET actor = 'x'")
    with drop_rows("auditevent"), pytest.raises(SealingRefused):
        seal_now()
    assert AuditUnsealed.objects.filter(refused=False).count() == 1
    assert seal_now().refused_count == 1


def test_e4_resume_is_refused_if_the_database_stores_no_restore_event() -> None:
    sealed(3)
    note = note_of("phi-oidc-audit", 9)
    with dropping_trigger("auditevent"), pytest.raises(SealingRefused):
        resume_log(witnessed_note=note, reason="x", key=KEY, now=NOW)
    assert AuditLeaf.objects.count() == 3
    resume_log(witnessed_note=note, reason="x", key=KEY, now=NOW)
    assert AuditLeaf.objects.count() == 4


QUEUE_TAMPERINGS = {
    "marked as refused": f"UPDATE {QUEUE} SET refused = true WHERE event_id = %s",
    "removed": f"DELETE FROM {QUEUE} WHERE event_id = %s",
}


@pytest.mark.parametrize("statement", QUEUE_TAMPERINGS.values(), ids=QUEUE_TAMPERINGS)
def test_e9_event_that_was_removed_from_the_queue_raises_an_alert(statement: str) -> None:
    removed, forged, _ = events(3)
    with without_triggers():
        sql("UPDATE phi_oidc_audit_auditevent SET actor = 'x' WHERE id = %s", forged)
    assert sql(statement, removed) == 1

    def rules(*, minutes: int) -> list[str]:
        with with_options(KEYS={"audit_signing": PEM}), clock.override_clock(lambda: NOW + timedelta(minutes=minutes)):
            seal_task()
        alerts = AuditEvent.objects.filter(action="alert.raised").order_by("id")
        return [json.loads(alert.detail)["rule"] for alert in alerts]

    assert rules(minutes=4) == ["event_forged"]
    assert rules(minutes=6) == rules(minutes=7) == ["event_forged", "event_unqueued"]
    assert json.loads(AuditEvent.objects.filter(action="alert.raised").last().detail)["count"] == 1
    assert sum(result.event_count for result in append_all_to_log(key=KEY, clock=lambda: NOW, retry_refused=True)) >= 1
    assert AuditLeaf.objects.filter(event_id=removed).exists()
    assert count_unqueued_events(now=NOW + timedelta(minutes=6)) == 0


def test_e9_event_removed_from_the_queue_is_found_once_it_is_five_minutes_old_however_long_no_worker_ran() -> None:
    sealed(1, at=NOW)
    (removed,) = events(1, at=NOW + timedelta(minutes=1))
    sql(f"DELETE FROM {QUEUE} WHERE event_id = %s", removed)

    def count(minutes: float) -> int:
        return count_unqueued_events(now=NOW + timedelta(minutes=minutes))

    assert [count(5.9), count(6.1), count(180)] == [0, 1, 1]
    assert count(24 * 60 + 6.1) == 0, "not of more than a day"
    sealed(1, at=NOW + timedelta(minutes=180))
    assert [count(180.9), count(181.1)] == [1, 0], "the log before the last runs is not read again"


def test_e7_event_under_a_mac_key_that_is_not_current_is_sealed_with_an_alert() -> None:
    newest, older = settings.PHI_OIDC["KEYS"]["audit_mac"]
    with with_options(KEYS={"audit_mac": [older]}):
        events(2)
    assert seal_now(at=NOW).event_count == 2
    (alert,) = AuditEvent.objects.filter(action="alert.raised")
    assert json.loads(alert.detail) == {"rule": "event_key_retired", "count": 2}
    with with_options(KEYS={"audit_mac": [older]}):
        events(1, at=NOW + timedelta(minutes=1))
    events(1, at=NOW + timedelta(minutes=1))
    assert seal_now(at=NOW + timedelta(minutes=1)).event_count == 3
    assert AuditEvent.objects.filter(action="alert.raised").count() == 1, "at most one an hour"
    assert newest != older


def test_e7_retired_signing_key_is_accepted_up_to_its_last_checkpoint_only() -> None:
    sealed(3)
    retired = {"key": encode_verifier_key("phi-oidc-audit", KEY.public_key()), "until_size": 3}
    with with_options(KEYS={"audit_public": [retired]}):
        keys = get_public_keys(OTHER_KEY)
        assert verify_checkpoint(note_of("phi-oidc-audit", 3), keys).tree_size == 3
        with pytest.raises(CheckpointInvalid, match="not signed by a known key"):
            verify_checkpoint(note_of("phi-oidc-audit", 4), keys)
        assert verify_checkpoint(note_of("phi-oidc-audit", 4, OTHER_KEY), keys).tree_size == 4
        # The log continues under the new key, and not under a checkpoint that the old one signed after that.
        events(1)
        assert append_to_log(key=OTHER_KEY, now=NOW).event_count == 1
        summary = VerificationSummary()
        assert list(verify_log(keys=keys, now=NOW, summary=summary)) == []
        assert summary.checkpoints == 2
        with without_triggers():
            sql(f"UPDATE {CHECKPOINT} SET note = %s WHERE tree_size = 4", note_of("phi-oidc-audit", 4))
        events(1)
        with pytest.raises(SealingRefused, match="known key"):
            append_to_log(key=OTHER_KEY, now=NOW)
    assert get_public_keys(KEY)[-1] == KEY.public_key()


@pytest.mark.parametrize("until", [None, "3", -1, True])
def test_e7_retired_signing_key_without_a_valid_size_is_refused(until: object) -> None:
    vkey = encode_verifier_key("phi-oidc-audit", KEY.public_key())
    with (
        with_options(KEYS={"audit_public": [{"key": vkey, "until_size": until}]}),
        pytest.raises(KeyMissing, match="until_size"),
    ):
        get_public_keys()
    with with_options(KEYS={"audit_public": [{"key": vkey, "until_size": 3}]}):
        assert len(get_public_keys()) == 1
