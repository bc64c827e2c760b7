"""Everything that an attacker with all database privileges does to a sealed log is found and classified."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import connections
from django.test import override_settings

from django_phi_oidc.audit.events import (
    EVENT_FIELDS,
    AuthenticatedEvent,
    Event,
    NewEvent,
    Origin,
    compute_mac,
    parse_event,
)
from django_phi_oidc.audit.log import replayer
from django_phi_oidc.audit.log.findings import FindingKind, LogFinding, VerificationSummary
from django_phi_oidc.audit.log.ranges import (
    find_checkpoint_at_least,
    find_checkpoint_at_most,
    find_newest_checkpoint,
)
from django_phi_oidc.audit.log.reader import find_raw_event
from django_phi_oidc.audit.log.recovery import resume_log
from django_phi_oidc.audit.log.sequencer import (
    append_all_to_log,
    append_leaves,
    exclusive_transaction,
    get_current_log,
)
from django_phi_oidc.audit.log.verifier import verify_log
from django_phi_oidc.audit.merkle.checkpoint import Checkpoint, parse_checkpoint
from django_phi_oidc.audit.merkle.rfc6962 import hash_leaf
from django_phi_oidc.audit.models import AuditCheckpoint, AuditEvent, AuditLeaf
from django_phi_oidc.audit.storage import authenticate_event, insert_events, parse_event_row
from django_phi_oidc.crypto import keyring
from tests.support.audit_log import KEY, NOW, OTHER_KEY, events, seal_now, sealed
from tests.support.audit_tampering import (
    CHECKPOINT,
    EVENT,
    LEAF,
    NODE,
    QUEUE,
    copy_event,
    is_postgresql,
    sql,
    without_triggers,
)
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
BATCHES = (5, 300, 7)
ID = uuid.UUID("01990000-0000-7000-8000-000000000001")
LATER = NOW + timedelta(hours=1)


@pytest.fixture
def ids() -> list[uuid.UUID]:
    """Return the ids of 312 events in leaf order, sealed in three batches that cross a stored node."""
    return [id_ for number, count in enumerate(BATCHES) for id_ in sealed(count, at=NOW + timedelta(minutes=number))]


def find(**options: Any) -> list[LogFinding]:
    return list(
        verify_log(keys=[KEY.public_key()], now=options.pop("now", LATER), summary=VerificationSummary(), **options)
    )


def kinds(**options: Any) -> set[tuple[str, str]]:
    """Return the kind of each finding with its event or tree size."""
    return {(finding.kind.value, finding.event_id or str(finding.tree_size or "")) for finding in find(**options)}


def newest(**conditions: Any) -> Checkpoint:
    return parse_checkpoint(AuditCheckpoint.objects.filter(**conditions).last().note)


def test_unaltered_log_has_no_findings(ids: list[uuid.UUID]) -> None:
    summary = VerificationSummary()
    assert list(verify_log(keys=[KEY.public_key()], now=LATER, summary=summary, witnessed_checkpoints=[newest()])) == []
    assert (summary.tree_size, summary.events, summary.checkpoints, summary.waiting) == (312, 312, 3, 0)
    events(2, at=LATER)
    assert list(verify_log(keys=[KEY.public_key()], now=LATER, summary=summary)) == []
    assert summary.waiting == 2


def test_empty_log_has_no_findings() -> None:
    assert find() == []


OTHER_VALUES: dict[str, Any] = {
    "id": ID,
    "v": 2,
    "mac_key": "0badc0de",
    "occurred_at": "2001-02-03 04:05:06.000007",
    "detail": '{"claim":"address"}',
    "mac": b"\x01" * 32,
}


@pytest.mark.parametrize("place", [0, 150, 311], ids=["first", "middle", "last"])
@pytest.mark.parametrize("column", [*EVENT_FIELDS, "mac"])
def test_altered_column_is_found(ids: list[uuid.UUID], column: str, place: int) -> None:
    value = OTHER_VALUES.get(column, "x")
    with without_triggers():
        assert sql(f"UPDATE {EVENT} SET {column} = %s WHERE id = %s", value, ids[place]) == 1
    victim = str(ids[place])
    if column == "id":
        assert kinds() == {("event_missing", victim), ("event_forged", str(ID))}
    else:
        assert kinds() == {("event_altered", victim)}


def changed_leaf(column: str, value: Any) -> Callable[[list[uuid.UUID]], object]:
    return lambda ids: sql(f"UPDATE {LEAF} SET {column} = %s WHERE leaf_index = 150", value)


def swap_leaves(first: int, second: int) -> Callable[[list[uuid.UUID]], object]:
    def swap(ids: list[uuid.UUID]) -> None:
        for old, new in ((first, 999), (second, first), (999, second)):
            sql(f"UPDATE {LEAF} SET leaf_index = %s WHERE leaf_index = %s", new, old)

    return swap


def swap_ids(ids: list[uuid.UUID]) -> None:
    for old, new in ((ids[100], ID), (ids[200], ids[100]), (ID, ids[200])):
        sql(f"UPDATE {EVENT} SET id = %s WHERE id = %s", new, old)


def delete_event(place: int) -> Callable[[list[uuid.UUID]], object]:
    return lambda ids: sql(f"DELETE FROM {EVENT} WHERE id = %s", ids[place])


def truncate_tail(ids: list[uuid.UUID]) -> None:
    sql(f"DELETE FROM {CHECKPOINT} WHERE tree_size > 305")
    for id_ in ids[305:]:
        sql(f"DELETE FROM {EVENT} WHERE id = %s", id_)
    sql(f"DELETE FROM {LEAF} WHERE leaf_index >= 305")


def note_of_another_size(ids: list[uuid.UUID]) -> None:
    other = AuditCheckpoint.objects.get(tree_size=5).note
    sql(f"UPDATE {CHECKPOINT} SET note = %s WHERE tree_size = 305", other)


def foreign_note(ids: list[uuid.UUID]) -> None:
    note = AuditCheckpoint.objects.get(tree_size=305).note
    sql(f"UPDATE {CHECKPOINT} SET note = %s WHERE tree_size = 305", note.replace("305", "306"))


TAMPERED: dict[str, tuple[Callable[[list[uuid.UUID]], object], Callable[[list[uuid.UUID]], set[tuple[str, str]]]]] = {
    "the first event deleted": (delete_event(0), lambda ids: {("event_missing", str(ids[0]))}),
    "one in the middle deleted": (delete_event(150), lambda ids: {("event_missing", str(ids[150]))}),
    "the last one deleted": (delete_event(311), lambda ids: {("event_missing", str(ids[311]))}),
    "a forged event inserted": (
        lambda ids: copy_event(ids[3], id=ID if is_postgresql() else ID.hex),
        lambda ids: {("event_forged", str(ID))},
    ),
    "two leaves swapped": (
        swap_leaves(100, 200),
        lambda ids: {("event_altered", "305")},
    ),
    "two leaves of two checkpoints swapped": (
        swap_leaves(4, 5),
        lambda ids: {("event_altered", "5")},
    ),
    "the ids of two events swapped": (
        swap_ids,
        lambda ids: {("event_altered", str(ids[100])), ("event_altered", str(ids[200]))},
    ),
    "the hash of a leaf changed": (
        changed_leaf("leaf_hash", b"\x02" * 32),
        lambda ids: {("event_altered", str(ids[150]))},
    ),
    "the event of a leaf changed": (
        changed_leaf("event_id", ID),
        lambda ids: {("event_missing", str(ID)), ("event_altered", str(ids[150]))},
    ),
    "a leaf deleted": (
        lambda ids: sql(f"DELETE FROM {LEAF} WHERE leaf_index = 150"),
        lambda ids: {("event_missing", ""), ("event_unsealed", str(ids[150]))},
    ),
    "the last leaf deleted": (
        lambda ids: sql(f"DELETE FROM {LEAF} WHERE leaf_index = 311"),
        lambda ids: {("event_missing", ""), ("event_unsealed", str(ids[311]))},
    ),
    "a leaf added": (
        lambda ids: sql(f"INSERT INTO {LEAF} VALUES (312, %s, %s)", ID, b"\x03" * 32),
        lambda ids: {("tree_altered", str(ID))},
    ),
    "the hash of a leaf cut short": (
        changed_leaf("leaf_hash", b"\x02" * 31),
        lambda ids: {("event_altered", str(ids[150]))},
    ),
    "the hash of the last leaf emptied": (
        lambda ids: sql(f"UPDATE {LEAF} SET leaf_hash = %s WHERE leaf_index = 311", b""),
        lambda ids: {("event_altered", str(ids[311]))},
    ),
    "a stored node cut short": (
        lambda ids: sql(f"UPDATE {NODE} SET node_hash = %s", b"\x04"),
        lambda ids: {("tree_altered", "")},
    ),
    "a stored node and a leaf below it": (
        lambda ids: (
            sql(f"UPDATE {NODE} SET node_hash = %s", b"\x04" * 32),
            sql(f"UPDATE {LEAF} SET leaf_hash = %s WHERE leaf_index = 150", b"\x02" * 32),
        ),
        lambda ids: {("tree_altered", ""), ("event_altered", str(ids[150]))},
    ),
    "a stored node changed": (
        lambda ids: sql(f"UPDATE {NODE} SET node_hash = %s", b"\x04" * 32),
        lambda ids: {("tree_altered", "")},
    ),
    "a stored node deleted": (lambda ids: sql(f"DELETE FROM {NODE}"), lambda ids: {("tree_altered", "")}),
    "the root of a checkpoint changed": (
        lambda ids: sql(f"UPDATE {CHECKPOINT} SET root_hash = %s WHERE tree_size = 305", b"\x05" * 32),
        lambda ids: {("tree_altered", "305")},
    ),
    "the size of a checkpoint changed": (
        lambda ids: sql(f"UPDATE {CHECKPOINT} SET tree_size = 306 WHERE tree_size = 305"),
        lambda ids: {("tree_altered", "306")},
    ),
    "the size of the last checkpoint changed": (
        lambda ids: sql(f"UPDATE {CHECKPOINT} SET tree_size = 400 WHERE tree_size = 312"),
        lambda ids: {("tree_altered", "400")},
    ),
    "the epoch of a checkpoint changed": (
        lambda ids: sql(f"UPDATE {CHECKPOINT} SET epoch = 2 WHERE tree_size = 305"),
        lambda ids: {("tree_altered", "305")},
    ),
    "the note of a checkpoint replaced by an older one": (
        note_of_another_size,
        lambda ids: {("tree_altered", "305")},
    ),
    "the note of a checkpoint changed": (foreign_note, lambda ids: {("tree_altered", "305")}),
    "the last checkpoint deleted": (
        lambda ids: sql(f"DELETE FROM {CHECKPOINT} WHERE tree_size = 312"),
        lambda ids: {(kind, str(id_)) for id_ in ids[305:] for kind in ("tree_altered", "event_unsealed")},
    ),
    "the tail truncated with its checkpoints": (truncate_tail, lambda ids: {("log_truncated", "312")}),
}


DETAILS: dict[str, str] = {
    "two leaves swapped": "do not lead to the root that was signed. Not in their order: the leaves 100",
    "two leaves of two checkpoints swapped": "leaves 0 to 4 do not lead to the root",
    "the hash of a leaf changed": "The hash in its leaf was changed; the event is as it was sealed.",
    "the event of a leaf changed": "Its leaf was changed, and now names event",
    "a leaf deleted": "The leaf is gone.",
    "a leaf added": "No checkpoint covers this leaf.",
    "a stored node changed": "The stored node 0 of level 8 was changed",
    "a stored node deleted": "The stored node 0 of level 8 is missing",
    "the root of a checkpoint changed": "Its root is not the one that was signed.",
    "the size of a checkpoint changed": "Its size is not the one that was signed.",
    "the note of a checkpoint replaced by an older one": "Its size is not the one that was signed.",
    "the ids of two events swapped": "It is not what was sealed.",
}
"""What the text of a finding says about a manipulation that has no kind of its own."""


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_is_found(ids: list[uuid.UUID], name: str) -> None:
    tamper, expected = TAMPERED[name]
    outside = newest()
    assert kinds(witnessed_checkpoints=[outside]) == set()
    with without_triggers():
        tamper(ids)
    assert any(DETAILS.get(name, "") in finding.text for finding in find(witnessed_checkpoints=[outside]))
    findings = kinds(witnessed_checkpoints=[outside])
    assert expected(ids) <= findings
    assert {kind for kind, _ in findings} - {"log_truncated", "fork_undeclared"} <= {kind for kind, _ in expected(ids)}


@pytest.mark.sqlite
def test_insert_or_replace_is_found(ids: list[uuid.UUID]) -> None:
    values = ", ".join("'x'" if name == "actor" else name for name in column_names())
    statement = f"INSERT OR REPLACE INTO {EVENT} SELECT {values} FROM {EVENT} WHERE id = %s"
    with pytest.raises(Exception, match="REPLACE refused"):
        sql(statement, ids[9])
    assert find() == []
    with without_triggers():
        sql(statement, ids[9])
    assert kinds() == {("event_altered", str(ids[9]))}


def column_names() -> list[str]:
    return [field.column for field in AuditEvent._meta.concrete_fields]


@pytest.mark.postgresql
def test_duplicate_id_is_found(ids: list[uuid.UUID]) -> None:
    sql(f"ALTER TABLE {EVENT} DROP CONSTRAINT {EVENT}_pkey")
    try:
        with without_triggers():
            copy_event(ids[9], actor="another")
        assert kinds() == {("event_altered", str(ids[9]))}
        assert any("another row" in finding.text for finding in find())
    finally:
        with without_triggers():
            sql(f"DELETE FROM {EVENT} WHERE id = %s AND actor = 'another'", ids[9])
        sql(f"ALTER TABLE {EVENT} ADD PRIMARY KEY (id)")
    assert find() == []


def test_event_deleted_before_sealing_is_found(ids: list[uuid.UUID]) -> None:
    (victim,) = events(1, at=LATER)
    with without_triggers():
        sql(f"DELETE FROM {EVENT} WHERE id = %s", victim)
    assert kinds() == {("event_missing", str(victim))}


def test_g10_limit_event_deleted_with_its_queue_row_before_sealing_is_not_found(ids: list[uuid.UUID]) -> None:
    """Until it is sealed, only the application log shows that the event was there."""
    (victim,) = events(1, at=LATER)
    with without_triggers():
        sql(f"DELETE FROM {EVENT} WHERE id = %s", victim)
        sql(f"DELETE FROM {QUEUE} WHERE event_id = %s", victim)
    seal_now(at=LATER)
    assert kinds() == set()


def test_g10_event_deleted_after_sealing_is_found(ids: list[uuid.UUID]) -> None:
    (victim,) = sealed(1, at=LATER)
    with without_triggers():
        sql(f"DELETE FROM {EVENT} WHERE id = %s", victim)
        sql(f"DELETE FROM {QUEUE} WHERE event_id = %s", victim)
    seal_now(at=LATER)
    assert kinds() == {("event_missing", str(victim))}


def test_g10_application_log_has_an_event_before_it_is_sealed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "phi_oidc.audit"):
        (victim,) = events(1, at=LATER)
    (line,) = [record.getMessage() for record in caplog.records if str(victim) in record.getMessage()]
    assert parse_event(line) == parse_event_row(AuditEvent.objects.get(pk=victim))


def test_event_altered_before_sealing_is_found_and_not_sealed(ids: list[uuid.UUID]) -> None:
    victim, _ = events(2, at=LATER)
    with without_triggers():
        sql(f"UPDATE {EVENT} SET actor = 'x' WHERE id = %s", victim)
    result = seal_now(at=LATER)
    assert (result.event_count, result.refused_count) == (1, 1)
    assert kinds(now=LATER) == {("event_forged", str(victim))}
    (alert,) = AuditEvent.objects.filter(action="alert.raised")
    assert (alert.resource, alert.detail) == (f"AuditEvent/{victim}", '{"count":1,"rule":"event_forged"}')
    assert (seal_now(at=LATER).refused_count, AuditEvent.objects.filter(action="alert.raised").count()) == (0, 1)


def test_event_that_is_not_sealed_in_time_is_found(ids: list[uuid.UUID]) -> None:
    (late,) = events(1, at=LATER)
    assert kinds(now=LATER + timedelta(minutes=4)) == set()
    assert kinds(now=LATER + timedelta(minutes=6)) == {("event_unsealed", str(late))}


def test_missing_mac_key_is_found_and_restored_key_resolves_it(ids: list[uuid.UUID]) -> None:
    (late,) = events(1, at=LATER)
    keys = settings.PHI_OIDC["KEYS"]["audit_mac"]
    with override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_mac": keys[1:]})):
        assert {finding.kind for finding in find()} == {FindingKind.EVENT_KEY_UNKNOWN}
        assert len(find()) == 313
        assert seal_now(at=LATER).refused_count == 1
    assert seal_now(at=LATER).event_count == 1  # the alert, not the refused event
    # The refused event, and an alert about the MAC of the first alert, which is of the older key.
    assert (
        sum(result.event_count for result in append_all_to_log(key=KEY, clock=lambda: LATER, retry_refused=True)) == 2
    )
    assert AuditLeaf.objects.filter(event_id=late).exists()
    assert find() == []


def test_checkpoints_of_another_key_are_all_find(ids: list[uuid.UUID]) -> None:
    findings = list(verify_log(keys=[OTHER_KEY.public_key()], now=LATER, summary=VerificationSummary()))
    assert {(finding.kind, finding.tree_size) for finding in findings} == {
        (FindingKind.TREE_ALTERED, size) for size in (5, 305, 312)
    }


def test_event_altered_with_the_mac_key_is_found(ids: list[uuid.UUID]) -> None:
    event = parse_event_row(AuditEvent.objects.get(id=ids[150])).event._replace(actor="x")
    mac = compute_mac(event, keyring.get_keys("audit_mac")[0].material)
    with without_triggers():
        sql(f"UPDATE {EVENT} SET actor = 'x', mac = %s WHERE id = %s", mac, ids[150])
    assert kinds() == {("event_altered", str(ids[150]))}


def test_verification_concurrent_with_sealing_has_no_findings(ids: list[uuid.UUID]) -> None:
    def seal_more(done: int, total: int) -> None:
        sealed(300, at=NOW - timedelta(days=1))

    assert find(progress=seal_more) == []
    assert AuditLeaf.objects.count() == 612


@pytest.mark.postgresql
@pytest.mark.parametrize(
    "value", ["infinity", "-infinity", "2026-11-24 16:05:09.123456+00 BC", "12026-11-24 16:05:09+00"]
)
def test_time_with_the_same_text_as_the_sealed_one_is_found(ids: list[uuid.UUID], value: str) -> None:
    with without_triggers():
        sql(f"UPDATE {EVENT} SET occurred_at = %s WHERE id = %s", value, ids[0])
    assert kinds() == {("event_altered", str(ids[0]))}


HUGE = 2**62


def test_verification_of_enormous_numbers_ends(ids: list[uuid.UUID]) -> None:
    with without_triggers():
        sql(f"INSERT INTO {LEAF} VALUES (%s, %s, %s)", HUGE - 1, ID, b"\x03" * 32)
        sql(f"INSERT INTO {CHECKPOINT} SELECT %s, root_hash, epoch, sealed_at, 'x' FROM {CHECKPOINT} LIMIT 1", HUGE)
        sql(f"INSERT INTO {NODE} VALUES (8, %s, %s)", HUGE, b"\x03" * 32)
    assert kinds() == {
        ("event_missing", ""),
        ("tree_altered", str(HUGE)),
        ("tree_altered", str(ID)),
        ("tree_altered", ""),
    }


def test_leaves_without_rows_are_not_described_as_moved() -> None:
    leaf_range = replayer._LeafRange(first_leaf_index=0, event_ids=[bytes(15) + b"2", bytes(15) + b"1"])
    assert "the leaves 0 (event 00000000-" in replayer._describe_moved_leaves(leaf_range, 0, 2)
    leaf_range.event_ids[1] = b""
    assert replayer._describe_moved_leaves(leaf_range, 0, 2) == ""


@pytest.mark.sqlite
def test_checkpoint_whose_size_is_no_integer_is_reported_and_hides_no_other(ids: list[uuid.UUID]) -> None:
    with without_triggers():
        for size in ("6.5", "312.5", "'x'"):
            sql(f"INSERT INTO {CHECKPOINT} SELECT {size}, root_hash, epoch, sealed_at, note FROM {CHECKPOINT} LIMIT 1")
    sealed(3, at=LATER)
    assert [(finding.kind.value, finding.text) for finding in find()] == [
        ("tree_altered", f"The size of a checkpoint is {size!a}, which is no integer.")
        for size in ("6.5", "312.5", "'x'")
    ]
    sizes = {size: find_checkpoint_at_least(size, [KEY.public_key()]) for size in (6, 313, 316)}
    assert {size: found and found.tree_size for size, found in sizes.items()} == {6: 305, 313: 315, 316: None}
    sizes = {size: find_checkpoint_at_most(size, [KEY.public_key()]) for size in (4, 310, 2**40)}
    assert {size: found and found.tree_size for size, found in sizes.items()} == {4: None, 310: 305, 2**40: 315}


def test_checkpoint_of_the_largest_size_is_reported_and_hides_no_other(ids: list[uuid.UUID]) -> None:
    with without_triggers():
        sql(f"INSERT INTO {CHECKPOINT} SELECT {2**63 - 1}, root_hash, epoch, sealed_at, 'x' FROM {CHECKPOINT} LIMIT 1")
    assert kinds() == {("tree_altered", str(2**63 - 1))}
    assert find_newest_checkpoint([KEY.public_key()]) == newest(tree_size=312)


def test_negative_leaf_index_is_found(ids: list[uuid.UUID]) -> None:
    (victim,) = events(1, at=NOW)
    disable, enable = (
        ("PRAGMA ignore_check_constraints = ON", "PRAGMA ignore_check_constraints = OFF")
        if not is_postgresql()
        else (
            f"ALTER TABLE {LEAF} DROP CONSTRAINT phi_oidc_auditleaf_index",
            f"ALTER TABLE {LEAF} ADD CONSTRAINT phi_oidc_auditleaf_index CHECK (leaf_index >= 0)",
        )
    )
    sql(disable)
    try:
        with without_triggers():
            sql(f"INSERT INTO {LEAF} VALUES (-1, %s, %s)", victim, b"\x03" * 32)
            sql(f"DELETE FROM {QUEUE} WHERE event_id = %s", victim)
        assert kinds() == {("tree_altered", str(victim)), ("event_unsealed", str(victim))}
    finally:
        with without_triggers():
            sql(f"DELETE FROM {LEAF} WHERE leaf_index < 0")
        sql(enable)


def test_altered_leaf_next_to_a_missing_one_is_reported_as_undecided(ids: list[uuid.UUID]) -> None:
    with without_triggers():
        sql(f"UPDATE {LEAF} SET leaf_hash = %s WHERE leaf_index = 150", b"\x02" * 32)
        sql(f"DELETE FROM {LEAF} WHERE leaf_index = 200")
    (finding,) = [finding for finding in find() if finding.leaf_index == 150]
    assert "no root shows which" in finding.text
    assert kinds() == {
        ("event_altered", str(ids[150])),
        ("event_missing", ""),
        ("event_unsealed", str(ids[200])),
    }


def test_event_altered_together_with_its_leaf_is_found(ids: list[uuid.UUID]) -> None:
    with without_triggers():
        sql(f"UPDATE {EVENT} SET actor = 'x' WHERE id = %s", ids[150])
        forged = hash_leaf(find_raw_event(ids[150]).canonical)
        sql(f"UPDATE {LEAF} SET leaf_hash = %s WHERE leaf_index = 150", forged)
    (finding,) = [finding for finding in find() if finding.leaf_index == 150]
    assert (finding.kind, finding.text) == (FindingKind.EVENT_ALTERED, "Its MAC is not valid.")


def test_unreadable_restore_event_declares_no_epoch(ids: list[uuid.UUID]) -> None:
    note = AuditCheckpoint.objects.last().note
    restore_to(305, ids)
    resume_log(witnessed_note=note, reason="the disk broke", key=KEY, now=LATER)
    victim = AuditEvent.objects.get(action="audit.restored").id
    for detail in (
        "no json",
        "[]",
        '{"epoch":2}',
        '{"epoch":2,"origin":"x","root_hash":"zz","tree_size":1}',
        "[" * 9999,
    ):
        with without_triggers():
            sql(f"UPDATE {EVENT} SET detail = %s WHERE id = %s", detail, victim)
        assert kinds() == {("event_altered", str(victim)), ("fork_undeclared", "306")}


def restore_to(size: int, ids: list[uuid.UUID]) -> None:
    """Restore the database to its state with `size` events."""
    with without_triggers():
        for table, column in (
            (CHECKPOINT, "tree_size > %s"),
            (LEAF, "leaf_index >= %s"),
            (NODE, "(node_index + 1) * 256 > %s"),
        ):
            sql(f"DELETE FROM {table} WHERE {column}", size)
        for id_ in ids[size:]:
            sql(f"DELETE FROM {EVENT} WHERE id = %s", id_)
            sql(f"DELETE FROM {QUEUE} WHERE event_id = %s", id_)


def test_restored_log_is_truncated_and_after_new_events_forked(ids: list[uuid.UUID]) -> None:
    outside = newest()
    restore_to(305, ids)
    assert kinds(witnessed_checkpoints=[outside]) == {("log_truncated", "312")}
    assert kinds() == set()
    sealed(20, at=LATER)
    assert kinds(witnessed_checkpoints=[outside]) == {("fork_undeclared", "312")}
    assert kinds() == set()


def test_declared_restore_is_not_a_fault(ids: list[uuid.UUID]) -> None:
    older, outside = parse_checkpoint(AuditCheckpoint.objects.get(tree_size=305).note), newest()
    note = AuditCheckpoint.objects.last().note
    restore_to(305, ids)
    resume_log(witnessed_note=note, reason="the disk broke", key=KEY, now=LATER)
    sealed(20, at=LATER)
    assert kinds(witnessed_checkpoints=[older]) == set()
    findings = find(witnessed_checkpoints=[older, outside], known_lost_sizes=[312])
    assert [(finding.kind, finding.tree_size, finding.is_fault) for finding in findings] == [
        (FindingKind.FORK_DECLARED, 312, False)
    ]
    forged = Checkpoint(origin=outside.origin, tree_size=312, root_hash=b"\x06" * 32)
    larger = Checkpoint(origin=outside.origin, tree_size=313, root_hash=outside.root_hash)
    assert kinds(witnessed_checkpoints=[forged]) == {("fork_undeclared", "312")}
    assert kinds(witnessed_checkpoints=[larger]) == {("fork_undeclared", "313")}
    assert parse_checkpoint(AuditCheckpoint.objects.last().note).origin == "phi-oidc-audit/epoch-2"


def plant(event: Event) -> uuid.UUID:
    """Insert the event of an attacker who has the MAC key, and return its id."""
    mac = compute_mac(event, keyring.get_keys("audit_mac")[0].material)
    insert_events([AuthenticatedEvent(event, mac)])
    return event.id


def forged_restore(epoch: int = 2, size: int = 312, root_hash: bytes = bytes(32)) -> Event:
    detail = {"epoch": epoch, "origin": "phi-oidc-audit", "root_hash": root_hash.hex(), "tree_size": size, "why": "x"}
    new_event = NewEvent(action="audit.restored", origin=Origin(), now=LATER, detail=detail)
    return authenticate_event(new_event, allow_declaration=True).event


def seal_as_an_earlier_version(event_id: uuid.UUID) -> None:
    """Seal a planted event under the current epoch, as the sealer did before it looked at actions."""
    with exclusive_transaction():
        leaf = event_id.bytes, hash_leaf(find_raw_event(event_id).canonical)
        append_leaves(get_current_log(KEY), [leaf], key=KEY, now=LATER)


@pytest.mark.parametrize("is_sealed", [False, True])
def test_e1_forged_restore_event_declares_no_fork(ids: list[uuid.UUID], is_sealed: bool) -> None:
    outside = newest()
    restore_to(305, ids)
    id_ = plant(forged_restore(root_hash=outside.root_hash))
    if is_sealed:
        seal_as_an_earlier_version(id_)
    else:
        assert seal_now(at=LATER).refused_count == 1
    sealed(20, at=LATER)
    findings = find(witnessed_checkpoints=[outside], known_lost_sizes=[312])
    assert [finding.kind.value for finding in findings if finding.tree_size == 312] == ["fork_undeclared"]
    assert all(finding.is_fault for finding in findings)


def test_e1_declared_restore_is_a_fault_unless_its_lost_size_is_named(ids: list[uuid.UUID]) -> None:
    outside, note = newest(), AuditCheckpoint.objects.last().note
    restore_to(305, ids)
    resume_log(witnessed_note=note, reason="the disk broke", key=KEY, now=LATER)
    for lost_sizes, is_fault in (((), True), ((305, 311), True), ((305, 312), False)):
        summary = VerificationSummary()
        (finding,) = verify_log(
            keys=[KEY.public_key()],
            now=LATER,
            summary=summary,
            witnessed_checkpoints=[outside],
            known_lost_sizes=lost_sizes,
        )
        assert (finding.kind, finding.is_fault, summary.fault_count) == (FindingKind.FORK_DECLARED, is_fault, is_fault)


def test_e2_planted_restore_event_is_not_sealed_and_leaves_an_honest_log_intact(ids: list[uuid.UUID]) -> None:
    outside = newest()
    id_ = plant(forged_restore())
    assert seal_now(at=LATER).refused_count == 1
    assert seal_now(at=LATER).event_count == 1
    assert kinds(witnessed_checkpoints=[outside]) == {("event_forged", str(id_))}
    (alert,) = AuditEvent.objects.filter(action="alert.raised")
    assert (alert.resource, alert.detail) == (f"AuditEvent/{id_}", '{"count":1,"rule":"event_invalid"}')


def test_e2_planted_and_sealed_restore_event_changes_no_verdict(ids: list[uuid.UUID]) -> None:
    seal_as_an_earlier_version(plant(forged_restore()))
    outside, note = newest(), AuditCheckpoint.objects.last().note
    assert kinds(witnessed_checkpoints=[outside]) == set()
    sealed(1, at=LATER)
    assert kinds(witnessed_checkpoints=[outside]) == set()
    # A real restore after it opens the epoch that the planted event claims.
    lost, lost_note = newest(), AuditCheckpoint.objects.last().note
    with without_triggers():
        sql(f"DELETE FROM {CHECKPOINT} WHERE tree_size > 313")
        sql(f"DELETE FROM {LEAF} WHERE leaf_index >= 313")
    assert note == AuditCheckpoint.objects.last().note
    resume_log(witnessed_note=lost_note, reason="the disk broke", key=KEY, now=LATER)
    sealed(1, at=LATER)
    assert kinds(witnessed_checkpoints=[outside]) == set()
    assert kinds(witnessed_checkpoints=[lost]) == {("fork_declared", "314")}


def test_epoch_without_its_event_is_found(ids: list[uuid.UUID]) -> None:
    note = AuditCheckpoint.objects.last().note
    restore_to(305, ids)
    resume_log(witnessed_note=note, reason="the disk broke", key=KEY, now=LATER)
    victim = AuditEvent.objects.get(action="audit.restored").id
    with without_triggers():
        sql(f"DELETE FROM {EVENT} WHERE id = %s", victim)
    assert kinds() == {("event_missing", str(victim)), ("fork_undeclared", "306")}


@contextmanager
def blinded(function: str, *, victim: uuid.UUID, sealed_text: str) -> Iterator[None]:
    """Put a schema before pg_catalog, with a function or operator that returns what was sealed."""
    sql("CREATE SCHEMA blinding")
    sql(function.format(victim=victim, sealed=sealed_text.replace("'", "''")))
    sql("SET search_path = blinding, pg_catalog, public")
    try:
        yield
    finally:
        sql("RESET search_path")
        sql("DROP SCHEMA blinding CASCADE")


BLINDING_FUNCTIONS = {
    "convert_to": """
        CREATE FUNCTION blinding.convert_to(text, text) RETURNS bytea LANGUAGE sql AS $$
            SELECT pg_catalog.convert_to(CASE WHEN $1 LIKE '%{victim}%' THEN '{sealed}' ELSE $1 END, 'UTF8')
        $$""",
    "format": """
        CREATE FUNCTION blinding.format(text, VARIADIC "any") RETURNS text LANGUAGE internal AS 'text_format'""",
    "equality of integers": """
        CREATE FUNCTION blinding.never(integer, integer) RETURNS boolean LANGUAGE sql AS 'SELECT false';
        CREATE OPERATOR blinding.= (LEFTARG = integer, RIGHTARG = integer, FUNCTION = blinding.never)""",
    "order of bigints": """
        CREATE FUNCTION blinding.never(bigint, integer) RETURNS boolean LANGUAGE sql AS 'SELECT false';
        CREATE OPERATOR blinding.> (LEFTARG = bigint, RIGHTARG = integer, FUNCTION = blinding.never)""",
}


@pytest.mark.postgresql
@pytest.mark.without_pooler("it sets an option of a connection")
@pytest.mark.parametrize("function", BLINDING_FUNCTIONS.values(), ids=BLINDING_FUNCTIONS)
def test_e5_function_in_a_schema_before_pg_catalog_hides_no_alteration(ids: list[uuid.UUID], function: str) -> None:
    sealed_text = find_raw_event(ids[150]).canonical.decode()
    with without_triggers():
        sql(f"UPDATE {EVENT} SET actor = 'x' WHERE id = %s", ids[150])
    with blinded(function, victim=ids[150], sealed_text=sealed_text):
        assert kinds() == {("event_altered", str(ids[150])), ("protection_altered", "")}
    assert kinds() == {("event_altered", str(ids[150]))}


@pytest.mark.postgresql
def test_e5_function_in_the_schema_of_the_tables_hides_no_alteration(ids: list[uuid.UUID]) -> None:
    sealed_text = find_raw_event(ids[150]).canonical.decode()
    function = BLINDING_FUNCTIONS["convert_to"].replace("blinding.", "public.")
    with without_triggers():
        sql(f"UPDATE {EVENT} SET actor = 'x' WHERE id = %s", ids[150])
    sql(function.format(victim=ids[150], sealed=sealed_text))
    try:
        assert kinds() == {("event_altered", str(ids[150]))}
    finally:
        sql("DROP FUNCTION public.convert_to(text, text)")


@pytest.mark.postgresql
def test_e5_sealer_and_verifier_leave_the_search_path_as_it_was(ids: list[uuid.UUID]) -> None:
    def search_path() -> str:
        with connections["phi_audit"].cursor() as cursor:
            cursor.execute("SHOW search_path")
            return str(cursor.fetchone()[0])

    before = search_path()
    sealed(1, at=LATER)
    assert find() == []
    assert search_path() == before


@pytest.mark.sqlite
@pytest.mark.parametrize("respell", [str.upper, lambda text: str(uuid.UUID(text))], ids=["upper case", "with hyphens"])
def test_e9_respelled_id_that_no_query_finds_is_reported(ids: list[uuid.UUID], respell: Callable[[str], str]) -> None:
    victim = next(id_ for id_ in ids if id_.hex != id_.hex.upper())
    spelled = respell(victim.hex)
    with without_triggers():
        for table, column in ((EVENT, "id"), (LEAF, "event_id")):
            assert sql(f"UPDATE {table} SET {column} = %s WHERE {column} = %s", spelled, victim) == 1
    assert {kind for kind, _ in kinds()} == {"event_altered"}
    with without_triggers():
        for table, column in ((EVENT, "id"), (LEAF, "event_id")):
            sql(f"UPDATE {table} SET {column} = %s WHERE {column} = %s", victim.hex, spelled)
    assert kinds() == set()
