"""The log is exported as tiles: to a folder and to a storage, in steps, and never over other tiles."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.core.files.storage import InMemoryStorage
from django.test import override_settings

from django_phi_oidc.audit.errors import CheckpointInvalid, ProofInvalid
from django_phi_oidc.audit.log import tile_export
from django_phi_oidc.audit.log.tile_export import export_tiles
from django_phi_oidc.audit.log.tile_store import TileFolder, TileStorage, TileStore, find_tile_store
from django_phi_oidc.audit.merkle.tiles import get_tile_path
from django_phi_oidc.audit.models import AuditCheckpoint, AuditEvent, AuditLeaf
from django_phi_oidc.audit.tasks import export_tiles as export_task
from tests.support.audit_log import KEY, OTHER_KEY, PEM, sealed
from tests.support.audit_tampering import CHECKPOINT, EVENT, LEAF, NODE, sql, without_triggers
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
KEYS = [KEY.public_key()]


@pytest.fixture(params=["folder", "storage"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> TileStore:
    return TileFolder(tmp_path / "tiles") if request.param == "folder" else TileStorage(InMemoryStorage())


def leaf_hashes(start: int, end: int) -> bytes:
    rows = AuditLeaf.objects.filter(leaf_index__gte=start, leaf_index__lt=end)
    return b"".join(bytes(row.leaf_hash) for row in rows)


def newest_note() -> bytes:
    return AuditCheckpoint.objects.order_by("-tree_size")[0].note.encode()


def test_new_leaves_are_exported_with_their_checkpoint(store: TileStore) -> None:
    sealed(300)
    result = export_tiles(store, keys=KEYS)
    assert (result.tree_size, result.written) == (300, 3)
    assert store.read("checkpoint") == newest_note()
    assert store.read("tile/0/000") == leaf_hashes(0, 256)
    assert store.read("tile/0/001.p/44") == leaf_hashes(256, 300)
    assert len(store.read("tile/1/000.p/1") or b"") == 32
    assert store.read("tile/entries/000") is None


def test_repeated_export_writes_nothing(store: TileStore) -> None:
    sealed(300)
    export_tiles(store, keys=KEYS)
    assert export_tiles(store, keys=KEYS).written == 0
    sealed(5)
    result = export_tiles(store, keys=KEYS)
    assert (result.tree_size, result.written) == (305, 1)


def test_partial_tiles_are_deleted_when_the_tile_is_full(store: TileStore) -> None:
    for count in (100, 50, 110):
        sealed(count)
        export_tiles(store, keys=KEYS)
    widths = [width for width in range(1, 256) if store.read(get_tile_path(0, 0, width))]
    assert widths == []
    assert store.read("tile/0/000") == leaf_hashes(0, 256)
    assert store.read("tile/0/001.p/4") == leaf_hashes(256, 260)


def test_long_log_is_exported_in_steps(store: TileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile_export, "LEAVES_PER_STEP", 300)
    for _ in range(4):
        sealed(200)
    steps: list[int] = []
    assert export_tiles(store, keys=KEYS, progress=steps.append).tree_size == 800
    assert steps == [200, 400, 600, 800]
    assert b"".join(store.read(get_tile_path(0, index)) or b"" for index in range(3)) == leaf_hashes(0, 768)


def test_export_that_was_killed_before_its_checkpoint_is_repeated(store: TileStore) -> None:
    sealed(300)
    export_tiles(store, keys=KEYS)
    checkpoint = store.read("checkpoint")
    assert checkpoint
    sealed(300)
    export_tiles(store, keys=KEYS)
    # As after a kill between the tiles and the checkpoint, with the last tile torn.
    store.write("checkpoint", checkpoint)
    store.write("tile/0/001", leaf_hashes(256, 512)[:100])
    assert export_tiles(store, keys=KEYS).written == 1
    assert store.read("tile/0/001") == leaf_hashes(256, 512)
    assert store.read("checkpoint") == newest_note()


def test_other_tile_is_not_replaced(store: TileStore) -> None:
    sealed(300)
    store.write("tile/0/000", bytes(8192))
    with pytest.raises(ProofInvalid, match=r"^Another tile is stored as tile/0/000: it is kept\.$"):
        export_tiles(store, keys=KEYS)
    assert store.read("tile/0/000") == bytes(8192)
    assert store.read("checkpoint") is None


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE {LEAF} SET leaf_hash = (SELECT leaf_hash FROM {LEAF} WHERE leaf_index = 7) WHERE leaf_index = 8",
        f"DELETE FROM {LEAF} WHERE leaf_index = 299",
        f"DELETE FROM {NODE}",
    ],
    ids=["leaf altered", "leaf missing", "node missing"],
)
def test_log_that_does_not_lead_to_its_checkpoint_is_not_exported(store: TileStore, statement: str) -> None:
    sealed(300)
    with without_triggers():
        sql(statement)
    with pytest.raises(ProofInvalid):
        export_tiles(store, keys=KEYS)
    assert store.read("tile/0/000") is None
    assert store.read("checkpoint") is None


def test_checkpoint_of_another_key_is_not_exported(store: TileStore) -> None:
    sealed(1)
    with pytest.raises(CheckpointInvalid):
        export_tiles(store, keys=[OTHER_KEY.public_key()])
    assert export_tiles(store, keys=KEYS).tree_size == 1


def test_log_that_does_not_continue_the_tiles_is_not_exported(store: TileStore) -> None:
    sealed(10)
    export_tiles(store, keys=KEYS)
    kept = store.read("checkpoint")
    with without_triggers():
        for table in (EVENT, LEAF, CHECKPOINT):
            sql(f"DELETE FROM {table}")
    sealed(5)
    with pytest.raises(ProofInvalid, match="does not reach as far"):
        export_tiles(store, keys=KEYS)
    sealed(15)
    with pytest.raises(ProofInvalid, match="does not continue the exported tiles"):
        export_tiles(store, keys=KEYS)
    assert store.read("checkpoint") == kept
    store.write("checkpoint", b"not a checkpoint")
    with pytest.raises(CheckpointInvalid):
        export_tiles(store, keys=KEYS)


@pytest.fixture
def _in_memory() -> Iterator[None]:
    storages = {**settings.STORAGES, "tiles": {"BACKEND": "django.core.files.storage.InMemoryStorage"}}
    with override_settings(STORAGES=storages):
        yield


@pytest.mark.usefixtures("_in_memory")
def test_task_exports_to_the_declared_place(tmp_path: Path) -> None:
    sealed(3)
    export_task()
    assert find_tile_store() is None
    for declared in ("tiles", tmp_path):
        audit = override_phi_oidc(settings.PHI_OIDC, AUDIT={"tiles": declared}, KEYS={"audit_signing": PEM})
        with override_settings(PHI_OIDC=audit):
            export_task()
            store = find_tile_store()
            assert store is not None
            assert store.read("tile/0/000.p/3") == leaf_hashes(0, 3)
    assert (tmp_path / "tile/0/000.p/3").stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.rglob(".draft-*")) == []
    assert AuditEvent.objects.count() == 3
