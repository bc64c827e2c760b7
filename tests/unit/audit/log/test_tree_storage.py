"""Hashes of leaves that are in no row are read from the tiles, and each tile must lead to its stored node."""

from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc.audit.log import tree_storage
from django_phi_oidc.audit.log.cursor import DeliveryPosition, read_items
from django_phi_oidc.audit.log.proofs import create_inclusion_proof
from django_phi_oidc.audit.log.tile_export import export_tiles
from django_phi_oidc.audit.log.tile_store import TileFolder
from django_phi_oidc.audit.log.tree_storage import LogDamaged, find_leaf_hashes, read_node
from django_phi_oidc.audit.models import AuditLeaf
from tests.support.audit_log import KEY, sealed
from tests.support.audit_tampering import LEAF, NODE, sql, without_triggers
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


@pytest.fixture
def removed(tmp_path: Path, settings: Any) -> list[Any]:
    """Export 300 leaves, remove the rows of the first 200, and return the ids of the events."""
    tree_storage._read_tile.cache_clear()
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


@pytest.mark.parametrize("change", ["altered", "short", "missing", "unreadable", "not declared", "without its node"])
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
    if change == "unreadable":
        file.mkdir()
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
