"""An exported file is verified line by line against the sealed log; one altered byte or a missing line is a fault."""

import uuid
from datetime import datetime, timedelta

import pytest

from django_phi_oidc.audit.errors import CheckpointInvalid, LogDamaged
from django_phi_oidc.audit.log.file_verification import (
    MAX_LISTED_FAULTS,
    FileVerification,
    create_cached_nodes_reader,
    verify_exported_file,
)
from django_phi_oidc.audit.log.tree_storage import read_nodes
from django_phi_oidc.audit.models import AuditLeaf
from django_phi_oidc.audit.search import EventFilters
from django_phi_oidc.contrib.audit_exports.event_export import export_events
from tests.support.audit_log import KEY, NOW, OTHER_KEY, events, sealed
from tests.support.audit_tampering import EVENT, LEAF, sql, without_triggers

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
LATER = NOW + timedelta(days=1)
EVERYTHING = EventFilters(until=NOW + timedelta(hours=1))


def export(filters: EventFilters = EVERYTHING) -> list[bytes]:
    return b"".join(lines for _, lines in export_events(filters, "jsonl", hostname="here")).splitlines(keepends=True)


def verify(lines: list[bytes], filters: EventFilters = EVERYTHING, *, now: datetime = LATER) -> FileVerification:
    return verify_exported_file(lines, filters, keys=[KEY.public_key()], now=now)


def found(result: FileVerification) -> list[tuple[str, int | None, uuid.UUID | None]]:
    return [(fault.kind.value, fault.line, fault.event_id) for fault in result.faults]


def test_file_as_exported_is_verified() -> None:
    sealed(1203)
    result = verify(export())
    assert (result.is_verified, result.line_count, result.sealed_count, result.fault_count) == (True, 1203, 1203, 0)
    assert result.checkpoint is not None
    assert result.checkpoint.tree_size == 1203
    assert result.first_time == NOW
    assert len(result.sha256) == 64


def test_each_altered_byte_of_a_line_is_a_fault() -> None:
    sealed(3)
    lines = export()
    for position in range(len(lines[1])):
        altered = bytearray(lines[1])
        altered[position] ^= 1
        result = verify([lines[0], bytes(altered), lines[2]])
        assert not result.is_verified, (position, bytes(altered))
        assert result.fault_count >= 1, position
        assert {fault.line for fault in result.faults} & {2, None}, position


def test_missing_line_is_a_fault_at_each_position() -> None:
    ids = sealed(3)
    lines = export()
    for number, event_id in enumerate(ids):
        result = verify([line for index, line in enumerate(lines) if index != number])
        assert found(result) == [("event_missing", None, event_id)]
        assert not result.is_verified


def test_repeated_moved_and_incomplete_lines_are_faults() -> None:
    ids = sealed(3)
    first, second, third = export()
    assert found(verify([first, second, second, third])) == [("line_out_of_order", 3, ids[1])]
    assert found(verify([second, first, third])) == [("line_out_of_order", 2, ids[0]), ("event_missing", None, ids[0])]
    assert found(verify([first, second, third[:-1]])) == [("line_unreadable", 3, None), ("event_missing", None, ids[2])]
    marker = b'{"incomplete":"row_unreadable"}\n'
    assert found(verify([first, second, third, marker])) == [("line_unreadable", 4, None)]


def test_filters_of_the_export_decide_what_is_missing() -> None:
    sealed(6)
    filters = EventFilters(subject="subject 1", until=EVERYTHING.until)
    lines = export(filters)
    assert verify(lines, filters).is_verified
    assert verify(lines).fault_count == 4
    result = verify(export(), filters)
    assert (result.is_verified, result.unlisted_count) == (True, 4)


def test_without_an_end_later_events_are_no_fault() -> None:
    sealed(3)
    lines = export()[:2]
    result = verify(lines, EventFilters())
    assert (result.is_verified, result.has_later_events) == (True, True)
    assert verify(export(), EventFilters()).has_later_events is False
    # The period of the filters is not over.
    assert verify(lines, now=NOW + timedelta(minutes=1)).has_later_events
    assert verify(lines).fault_count == 1


def test_event_that_waits_to_be_sealed_is_not_verified_yet() -> None:
    sealed(2)
    events(1, at=NOW + timedelta(minutes=1))
    result = verify(export())
    assert (result.is_verified, result.sealed_count, result.waiting_count, result.fault_count) == (False, 2, 1, 0)
    assert not verify([]).is_verified


def test_event_altered_in_database_and_leaf_is_a_fault() -> None:
    """An administrator who changes the row before the export, and its leaf, cannot change the signed root."""
    (event_id,) = sealed(1)
    assert verify(export()).is_verified
    with without_triggers():
        sql(f"UPDATE {EVENT} SET purpose = 'HOPERAT' WHERE id = %s", event_id)
    assert found(verify(export())) == [("event_altered", 1, event_id)]


def test_altered_leaf_is_a_fault() -> None:
    ids = sealed(2)
    lines = export()
    with without_triggers():
        sql(f"UPDATE {LEAF} SET leaf_hash = %s WHERE event_id = %s", b"x" * 32, ids[1])
    assert [kind for kind, *_ in found(verify(lines))] == ["event_altered"]


def test_removed_row_of_an_archived_event_is_still_verified() -> None:
    ids = sealed(2)
    lines = export()
    with without_triggers():
        sql(f"DELETE FROM {EVENT} WHERE id = %s", ids[0])
    result = verify(lines)
    assert (result.is_verified, result.unlisted_count) == (True, 1)


def test_checkpoint_of_another_key_is_refused() -> None:
    sealed(1)
    lines = export()
    assert verify(lines).is_verified
    with pytest.raises(CheckpointInvalid):
        verify_exported_file(lines, EVERYTHING, keys=[OTHER_KEY.public_key()], now=LATER)


def test_unreadable_row_and_missing_leaf_are_reported_as_damage_of_the_log() -> None:
    ids = sealed(2)
    lines = export()
    with without_triggers():
        sql(f"DELETE FROM {LEAF} WHERE event_id = %s", ids[1])
    with pytest.raises(LogDamaged):
        verify(lines)
    assert AuditLeaf.objects.count() == 1


def test_list_of_faults_is_limited() -> None:
    sealed(MAX_LISTED_FAULTS + 5)
    result = verify([b"nothing\n"])
    assert (len(result.faults), result.fault_count) == (MAX_LISTED_FAULTS, MAX_LISTED_FAULTS + 6)
    assert all(fault.describe() for fault in result.faults)


def test_cached_nodes_are_those_of_the_tree() -> None:
    sealed(300)
    cached = create_cached_nodes_reader()
    nodes = [(0, 0), (0, 299), (1, 149), (3, 5), (7, 1), (8, 0)]
    assert cached(nodes) == read_nodes(nodes)


def test_altered_id_is_reported_without_faults_of_the_lines_after_it() -> None:
    ids = sealed(3)
    first, second, third = export()
    altered = first.replace(str(ids[0]).encode(), b"ff" + str(ids[0]).encode()[2:])
    result = verify([altered, second, third])
    assert [fault[:2] for fault in found(result)] == [("event_altered", 1), ("event_missing", None)]
    assert verify([first, second, third]).is_verified
