"""Hashes of leaves that are in no row are read from the tiles, and each tile must lead to its stored node."""

import uuid
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal.inserts import insert
from django_phi_oidc.audit.errors import LogDamaged
from django_phi_oidc.audit.log import tree_storage
from django_phi_oidc.audit.log.archive_records import DetachedLeaves
from django_phi_oidc.audit.log.cursor import DeliveryPosition, read_items
from django_phi_oidc.audit.log.findings import LogFinding, VerificationSummary
from django_phi_oidc.audit.log.proofs import create_inclusion_proof
from django_phi_oidc.audit.log.tile_export import export_tiles
from django_phi_oidc.audit.log.tile_store import TileFolder
from django_phi_oidc.audit.log.tree_storage import (
    STORED_LEVELS,
    build_node_rows,
    find_leaf_hashes,
    read_compact_range,
    read_node,
    read_nodes,
)
from django_phi_oidc.audit.log.verifier import verify_log
from django_phi_oidc.audit.merkle.checkpoint import verify_checkpoint
from django_phi_oidc.audit.merkle.compact import CompactRange
from django_phi_oidc.audit.merkle.proof import (
    build_consistency_proof,
    build_inclusion_proof,
    compute_root_at_size,
)
from django_phi_oidc.audit.merkle.rfc6962 import MAX_TREE_SIZE, hash_node
from django_phi_oidc.audit.models import AuditCheckpoint, AuditLeaf, AuditWitness
from django_phi_oidc.errors import AuditUnavailable
from tests.support.audit_log import KEY, NOW, events, seal_now, sealed
from tests.support.audit_tampering import EVENT, LEAF, NODE, sql, without_triggers
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


@pytest.fixture
def removed(tmp_path: Path, settings: Any) -> list[Any]:
    """Export 300 leaves, remove the rows of the first 200, and return the ids of the events."""
    tree_storage._get_tile.cache_clear()
    ids = sealed(300)
    export_tiles(TileFolder(tmp_path), keys=[KEY.public_key()])
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, AUDIT={"tiles": tmp_path})
    with without_triggers():
        sql(f"DELETE FROM {LEAF} WHERE leaf_index < 200")
    return ids


def test_leaf_without_a_row_is_read_from_its_tile(removed: list[Any], tmp_path: Path) -> None:
    tile = (tmp_path / "tile/0/000").read_bytes()
    hashes = find_leaf_hashes(198, 203)
    assert [hashes[index] for index in range(198, 203)] == [tile[index * 32 :][:32] for index in range(198, 203)]
    assert '"leaf_index": 250' in create_inclusion_proof(removed[250])
    position = DeliveryPosition(tree_size=150, leaf_hash=tile[149 * 32 :][:32])
    # The events themselves are not in the log any more, but it is the same log.
    assert read_items(position, limit=1).fault == "event_missing"


@pytest.mark.parametrize("change", ["altered", "short", "missing", "not declared", "without its node"])
def test_tile_that_does_not_lead_to_its_node_is_not_used(
    change: str, removed: list[Any], tmp_path: Path, settings: Any
) -> None:
    file = tmp_path / "tile/0/000"
    content = file.read_bytes()
    if change == "altered":
        file.write_bytes(content[32:] + content[:32])
    elif change == "short":
        file.write_bytes(content[:-32])
    elif change == "not declared":
        settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, AUDIT={"tiles": None})
    elif change == "without its node":
        with without_triggers():
            sql(f"DELETE FROM {NODE}")
    else:
        file.unlink()
    assert set(find_leaf_hashes(0, 300)) == set(range(200, 300))
    with pytest.raises(LogDamaged):
        read_node(0, 150)
    with pytest.raises(LookupError):
        create_inclusion_proof(removed[250])


def test_rows_are_read_without_tiles(removed: list[Any], tmp_path: Path) -> None:
    (tmp_path / "tile/0/000").unlink()
    row = AuditLeaf.objects.get(leaf_index=256)
    assert read_node(0, 256) == bytes(row.leaf_hash)
    assert len(find_leaf_hashes(256, 300)) == 44


def test_leaves_without_rows_are_read_in_two_queries(tmp_path: Path, settings: Any) -> None:
    sealed(1100)
    export_tiles(TileFolder(tmp_path), keys=[KEY.public_key()])
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, AUDIT={"tiles": tmp_path})
    with without_triggers():
        sql(f"DELETE FROM {LEAF} WHERE leaf_index < 1000")
    with CaptureQueriesContext(connections["phi_audit"]) as queries:
        assert len(find_leaf_hashes(100, 1024)) == 924
    assert len(queries) == 2


def cut_off(store: Path, cause: str) -> None:
    """Make the tiles unreadable."""
    if cause == "read error":
        file = store / "tile/0/000"
        file.rename(store / "kept")
        file.mkdir()
    else:
        store.rename(store.with_name("not mounted"))
        store.mkdir()


def put_back(store: Path, cause: str) -> None:
    if cause == "read error":
        (store / "tile/0/000").rmdir()
        (store / "kept").rename(store / "tile/0/000")
    else:
        store.rmdir()
        store.with_name("not mounted").rename(store)


@pytest.fixture
def restarted(tmp_path: Path, settings: Any) -> Path:
    """Seal 100 and 200 events, export them, remove the first 200, and return the folder of the tiles."""
    tree_storage._get_tile.cache_clear()
    store = tmp_path / "tiles"
    sealed(100)
    sealed(200, at=NOW + timedelta(seconds=5))
    export_tiles(TileFolder(store), keys=[KEY.public_key()])
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, AUDIT={"tiles": store})
    with without_triggers():
        sql(f"DELETE FROM {EVENT} WHERE id IN (SELECT event_id FROM {LEAF} WHERE leaf_index < 200)")
        sql(f"DELETE FROM {LEAF} WHERE leaf_index < 200")
    return store


@pytest.mark.parametrize("cause", ["read error", "not mounted"])
def test_outage_of_the_tiles_is_not_reported_as_tampering(cause: str, restarted: Path) -> None:
    keys = [KEY.public_key()]
    old = verify_checkpoint(AuditCheckpoint.objects.get(tree_size=100).note, keys)

    def verify() -> list[LogFinding]:
        tree_storage._get_tile.cache_clear()
        detached = DetachedLeaves(ranges=[(0, 200)])
        options: Any = {"parts": [(100, 300)], "archived_size": 200, "detached_leaves": detached}
        summary = VerificationSummary()
        return list(verify_log(keys=keys, now=NOW, summary=summary, witnessed_checkpoints=[old], **options))

    assert verify() == []
    cut_off(restarted, cause)
    with pytest.raises(AuditUnavailable):
        verify()
    with pytest.raises(AuditUnavailable):
        find_leaf_hashes(0, 300)
    assert len(find_leaf_hashes(200, 300)) == 100
    put_back(restarted, cause)
    assert verify() == []


def test_sealing_waits_for_tiles_that_it_needs(restarted: Path) -> None:
    """The newest checkpoint that is known outside lies in a detached month."""
    AuditWitness.objects.create(origin="localhost", note=AuditCheckpoint.objects.get(tree_size=100).note)
    events(1, at=NOW + timedelta(minutes=1))
    cut_off(restarted, "read error")
    with pytest.raises(AuditUnavailable):
        seal_now(at=NOW + timedelta(minutes=1))
    put_back(restarted, "read error")
    assert seal_now(at=NOW + timedelta(minutes=1)).event_count == 1


class _Tree:
    """A tree whose nodes are in memory, and whose leaves and stored nodes are in the database."""

    def __init__(self, size: int) -> None:
        random = Random(size)
        self.levels = [[random.randbytes(32) for _ in range(size)]]
        while len(self.levels[-1]) > 1:
            below = self.levels[-1]
            self.levels.append([hash_node(*below[place : place + 2]) for place in range(0, len(below) - 1, 2)])
        ids = sorted(uuid.UUID(int=random.getrandbits(128)) for _ in range(size))
        leaves = zip(ids, self.levels[0], strict=True)
        rows = [AuditLeaf(leaf_index=index, event_id=id_, leaf_hash=hash_) for index, (id_, hash_) in enumerate(leaves)]
        insert(rows, using="phi_audit")
        insert(build_node_rows(CompactRange().extend(self.levels[0], kept_levels=STORED_LEVELS)), using="phi_audit")

    def read(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        return [self.levels[level][index] for level, index in places]


def test_proofs_are_those_of_the_tree_and_are_read_by_one_query() -> None:
    tree, random = _Tree(70_000), Random(7)
    # A leaf, a size of the log, and a size before.
    cases = [(random.randrange(size), size, random.randint(1, size)) for size in range(1, 600)]
    cases += [
        (random.randrange(size), size, random.randint(1, size))
        for size in (*(random.randint(600, 70_000) for _ in range(100)), 65_535, 65_536, 65_537, 70_000)
    ]
    for leaf_index, size, old_size in cases:
        for build, arguments in (
            (build_inclusion_proof, (leaf_index, size)),
            (build_consistency_proof, (old_size, size)),
            (compute_root_at_size, (size,)),
        ):
            with CaptureQueriesContext(connections["phi_audit"]) as queries:
                result = build(*arguments, read_nodes)  # type: ignore[operator]
            assert result == build(*arguments, tree.read), (build, arguments)  # type: ignore[operator]
            assert len(queries) == bool(result), (build, arguments)
        assert read_compact_range(size).compute_root() == compute_root_at_size(size, tree.read)


def test_node_without_all_its_hashes_is_damaged() -> None:
    tree = _Tree(600)
    assert read_nodes([(9, 0), (3, 2)]) == tree.read([(9, 0), (3, 2)])
    for place in ((9, 1), (0, 600), (10, 0), (40, 0), (62, 0)):
        with pytest.raises(LogDamaged):
            read_nodes([(3, 2), place])
    with pytest.raises(LogDamaged):
        build_consistency_proof(300, MAX_TREE_SIZE - 1, read_nodes)
    with without_triggers():
        sql(f"DELETE FROM {LEAF} WHERE leaf_index = 17")
    with pytest.raises(LogDamaged):
        read_nodes([(3, 2)])
    assert read_nodes([(9, 0), (3, 3)]) == tree.read([(9, 0), (3, 3)])
