"""A leaf may lack its row only if its partition was detached: any other one was deleted."""

import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc.audit.events import MAX_CHARACTERS, Action, NewEvent, Origin
from django_phi_oidc.audit.log import tree_storage
from django_phi_oidc.audit.log.archive import find_archived_event, open_archives, verify_archive, write_archive
from django_phi_oidc.audit.log.archive_files import list_restore_events, register_archive
from django_phi_oidc.audit.log.archive_records import (
    ArchiveRecord,
    DetachedLeaves,
    build_detached_leaves,
    find_detached_leaves,
    read_archive_record,
)
from django_phi_oidc.audit.log.findings import VerificationSummary
from django_phi_oidc.audit.log.models import ArchiveFile
from django_phi_oidc.audit.log.reader import create_mac_calculator, find_raw_event
from django_phi_oidc.audit.log.recovery import resume_log
from django_phi_oidc.audit.log.sequencer import append_declaration
from django_phi_oidc.audit.log.tile_export import export_tiles
from django_phi_oidc.audit.log.tile_store import TileFolder
from django_phi_oidc.audit.log.verifier import verify_log
from django_phi_oidc.audit.models import AuditCheckpoint, AuditEvent
from tests.support.audit_log import KEY, NOW, seal_now, sealed
from tests.support.audit_tampering import CHECKPOINT, EVENT, LEAF, copy_event, is_postgresql, sql, without_triggers
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
KEYS = [KEY.public_key()]
ALL_IDS = (uuid.UUID(int=0), uuid.UUID(int=2**128 - 1))


@pytest.fixture
def archived(tmp_path: Path, settings: Any) -> list[uuid.UUID]:
    """Seal, archive and export 300 events, and return their ids."""
    tree_storage._get_tile.cache_clear()
    ids = sealed(300)
    export_tiles(TileFolder(tmp_path / "tiles"), keys=KEYS)
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, AUDIT={"tiles": tmp_path / "tiles"})
    write_archive(tmp_path / "1.jsonl", first_leaf_index=0, tree_size=300, progress=lambda done, total: None)
    return ids


def find_by_schedule(detached_leaves: DetachedLeaves) -> list[tuple[str, int | None]]:
    findings = verify_log(
        keys=KEYS,
        now=NOW + timedelta(seconds=3),
        summary=VerificationSummary(),
        parts=[(0, 256), (256, 300)],
        archived_size=300,
        detached_leaves=detached_leaves,
    )
    return [(finding.kind.value, finding.leaf_index) for finding in findings]


def find_with_archive(detached_leaves: DetachedLeaves, folder: Path) -> list[tuple[str, int | None]]:
    with open_archives([verify_archive(folder / "1.jsonl", KEYS)]) as find_archived:
        findings = verify_log(
            keys=KEYS,
            now=NOW + timedelta(seconds=3),
            summary=VerificationSummary(),
            find_archived=find_archived,
            detached_leaves=detached_leaves,
        )
        return [(finding.kind.value, finding.leaf_index) for finding in findings]


def test_archived_event_that_was_deleted_with_its_leaf_is_missing(archived: list[uuid.UUID], tmp_path: Path) -> None:
    """The leaf keeps its id from being sealed again, for another event."""
    with without_triggers():
        sql(f"DELETE FROM {EVENT} WHERE id = %s", archived[10])
    kept = find_detached_leaves(read_archive_record(KEYS))
    assert (find_by_schedule(kept), find_with_archive(kept, tmp_path)) == ([], [])
    with without_triggers():
        sql(f"DELETE FROM {LEAF} WHERE leaf_index = 10")
    missing = [("event_missing", 10)]
    # The tables have no partitions.
    assert (find_by_schedule(kept), find_with_archive(kept, tmp_path)) == (missing, missing)
    for ranges in ([(0, 10)], [(11, 300)], [(0, 10), (11, 300)]):
        others = DetachedLeaves(ranges=ranges, gaps=[ALL_IDS])
        assert (find_by_schedule(others), find_with_archive(others, tmp_path)) == (missing, missing)
    detached = DetachedLeaves(ranges=[(0, 5), (10, 11)], gaps=[ALL_IDS])
    assert (find_by_schedule(detached), find_with_archive(detached, tmp_path)) == ([], [])


@pytest.mark.parametrize(("first", "end", "expected"), [(10, 11, []), (9, 10, ["event_missing"])])
def test_id_of_an_archived_event_must_be_of_a_detached_partition(
    first: int, end: int, expected: list[str], archived: list[uuid.UUID], tmp_path: Path
) -> None:
    """With the MAC key, an attacker can state that any leaf was detached."""
    with without_triggers():
        sql(f"DELETE FROM {EVENT} WHERE id = %s", archived[10])
        sql(f"DELETE FROM {LEAF} WHERE leaf_index = 10")
    detached = DetachedLeaves(ranges=[(10, 11)], gaps=[(archived[first], archived[end])])
    assert [kind for kind, _ in find_with_archive(detached, tmp_path)] == expected


def test_second_event_with_the_id_of_a_detached_one_is_found(archived: list[uuid.UUID], tmp_path: Path) -> None:
    detached = DetachedLeaves(ranges=[(10, 11)], gaps=[ALL_IDS])
    copy = uuid.UUID("01990000-0000-7000-8000-000000000001")
    with without_triggers():
        copy_event(archived[10], id=str(copy) if is_postgresql() else copy.hex)
        sql(f"DELETE FROM {EVENT} WHERE id = %s", archived[10])
        sql(f"DELETE FROM {LEAF} WHERE leaf_index = 10")
        sql(f"UPDATE {EVENT} SET id = %s, subject = 'x' WHERE id = %s", archived[10], copy)
    assert ("event_altered", 10) in find_with_archive(detached, tmp_path)


def test_leaves_that_an_event_states_are_read_back() -> None:
    many = {f"{month:06}": [(month * 10, month * 10 + 5), (month * 10 + 7, month * 10 + 8)] for month in range(300)}
    items = build_detached_leaves(ArchiveRecord(detached_leaves=many), {})
    assert len(items) <= 64
    assert max(map(len, items)) <= MAX_CHARACTERS
    detail = {"archived_size": 12, "detached_leaves": items}
    append_declaration(NewEvent(Action.AUDIT_ARCHIVED, Origin(), NOW, detail=detail), key=KEY)
    assert read_archive_record(KEYS) == ArchiveRecord(archived_size=12, detached_leaves=many)
    with pytest.raises(LookupError, match="too many pieces"):
        build_detached_leaves(ArchiveRecord(detached_leaves={"202610": [(n, n + 1) for n in range(0, 4000, 2)]}), {})


@pytest.mark.parametrize("change", ["", "other leaf", "altered", "no restore", "no events"])
def test_restore_of_which_the_event_is_in_an_archive_is_declared(change: str, tmp_path: Path) -> None:
    sealed(3)
    note = AuditCheckpoint.objects.get().note
    with without_triggers():
        # A restore from an older backup.
        for table in (EVENT, LEAF, CHECKPOINT):
            sql(f"DELETE FROM {table}")
    sealed(2, at=NOW + timedelta(minutes=1))
    resume_log(witnessed_note=note, reason="the disk broke", key=KEY, now=NOW + timedelta(minutes=2))
    sealed(4, at=NOW + timedelta(minutes=3))
    size = AuditCheckpoint.objects.latest("tree_size").tree_size
    write_archive(tmp_path / "1.jsonl", first_leaf_index=0, tree_size=size, progress=lambda done, total: None)
    register_archive(verify_archive(tmp_path / "1.jsonl", KEYS), sha256="0" * 64)
    with without_triggers():
        sql(f"DELETE FROM {EVENT} WHERE action = 'audit.restored'")
    file = ArchiveFile.objects.get()
    ((leaf_index, canonical),) = file.restore_events
    if change == "other leaf":
        file.restore_events = [(leaf_index + 1, canonical)]
    elif change == "altered":
        file.restore_events = [(leaf_index, canonical.replace("the disk", "a disk"))]
    elif change == "no restore":
        file.restore_events = []
    elif change == "no events":
        file.restore_events = [["1", "x"], [1], [1, 2], [2**70, "x"], [-1, "x"], "x", {}, None]
    file.save()
    findings = verify_log(
        keys=KEYS,
        now=NOW + timedelta(minutes=3),
        summary=VerificationSummary(),
        parts=[(0, size)],
        archived_size=size,
        archived_restore_events=list_restore_events(KEYS),
    )
    assert [finding.kind.value for finding in findings] == (["fork_undeclared"] if change else [])


def test_event_of_an_archive_is_found_by_its_own_id(tmp_path: Path) -> None:
    """Who has the MAC key can seal an event whose `detail` has a member `id`, which no action declares."""
    first, second = sealed(2)
    other, absent = uuid.UUID(int=first.int + 2), uuid.UUID(int=first.int + 3)
    key_id = AuditEvent.objects.get(id=first).mac_key
    for id_, named in ((other, second), (uuid.UUID(int=first.int + 4), absent), (uuid.UUID(int=first.int + 5), "zzz")):
        copy_event(first, id=id_ if is_postgresql() else id_.hex, detail=f'{{"id":"{named}"}}')
        row = find_raw_event(id_)
        assert row is not None
        assert row.canonical is not None
        with without_triggers():
            sql(f"UPDATE {EVENT} SET mac = %s WHERE id = %s", create_mac_calculator()(key_id, row.canonical), id_)
    assert seal_now(at=NOW + timedelta(seconds=2)).refused_count == 0
    write_archive(tmp_path / "1.jsonl", first_leaf_index=0, tree_size=5, progress=lambda done, total: None)
    archive = verify_archive(tmp_path / "1.jsonl", KEYS)
    assert (archive.first_id, archive.last_id) == (first, second)
    found = find_archived_event(archive, second)
    assert found is not None
    assert found[0] == 1
    assert f'"id":"{second}"'.encode() in found[1]
    assert find_archived_event(archive, absent) is None


def test_record_of_archives_ignores_a_row_that_no_model_can_load() -> None:
    record_archive(300)
    altered = record_archive(400)
    with without_triggers():
        sql(f"UPDATE {EVENT} SET occurred_at = %s WHERE id = %s", "infinity" if is_postgresql() else "today", altered)
    assert read_archive_record(KEYS).archived_size == 300


def record_archive(size: int) -> uuid.UUID:
    now = NOW + timedelta(seconds=size)
    append_declaration(NewEvent(Action.AUDIT_ARCHIVED, Origin(), now, detail={"archived_size": size}), key=KEY)
    return AuditEvent.objects.latest("id").id
