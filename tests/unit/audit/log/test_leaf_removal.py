"""Tiles are compared with the stored nodes, and these with the nodes above them, in bounded memory."""

from pathlib import Path

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal.inserts import insert
from django_phi_oidc.audit.errors import ProofInvalid
from django_phi_oidc.audit.log.leaf_removal import _verify_tiles
from django_phi_oidc.audit.log.tile_store import TileFolder
from django_phi_oidc.audit.merkle.compact import CompactRange
from django_phi_oidc.audit.merkle.tiles import get_tile_path
from django_phi_oidc.audit.models import AuditNode
from tests.support.audit_tampering import NODE, sql, without_triggers

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
TREE_SIZE = (1 << 16) + (10 << 8)
"""A full block of 256 tiles, and one of 10."""
TILE = b"".join(number.to_bytes(32, "big") for number in range(256))


def compute_root(hashes: list[bytes]) -> bytes:
    tree = CompactRange()
    tree.extend(hashes)
    return tree.compute_root()


@pytest.fixture
def store(tmp_path: Path) -> TileFolder:
    """Store the nodes of a log with equal tiles, and the tiles 250 to 259."""
    root = compute_root([TILE[start : start + 32] for start in range(0, len(TILE), 32)])
    nodes = [AuditNode(level=8, node_index=index, node_hash=root) for index in range(TREE_SIZE >> 8)]
    nodes.append(AuditNode(level=16, node_index=0, node_hash=compute_root([root] * 256)))
    insert(nodes, using="phi_audit")
    store = TileFolder(tmp_path)
    for index in range(250, 260):
        store.write(get_tile_path(0, index), TILE)
    return store


def test_tiles_of_two_blocks_are_verified_with_few_nodes(store: TileFolder) -> None:
    with CaptureQueriesContext(connections["phi_audit"]) as queries:
        _verify_tiles(store, 250, 260, TREE_SIZE)
    # Two parts of tiles; the block that is full, and the node above it.
    assert len(queries) == 4


@pytest.mark.parametrize("index", [250, 255, 256, 259])
def test_altered_tile_is_found(index: int, store: TileFolder) -> None:
    store.write(get_tile_path(0, index), TILE[32:] + TILE[:32])
    with pytest.raises(ProofInvalid, match="do not lead to the exported checkpoint"):
        _verify_tiles(store, 250, 260, TREE_SIZE)


@pytest.mark.parametrize(("level", "index"), [(8, 0), (8, 249), (16, 0)])
def test_altered_node_is_found(level: int, index: int, store: TileFolder) -> None:
    """The tiles of an attacker could lead to an altered node."""
    with without_triggers():
        sql(f"UPDATE {NODE} SET node_hash = %s WHERE level = %s AND node_index = %s", bytes(32), level, index)
    with pytest.raises(ProofInvalid, match="stored nodes of the log are damaged"):
        _verify_tiles(store, 250, 260, TREE_SIZE)
