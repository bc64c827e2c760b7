"""Export the log as tiles, so that anybody can verify it without this database: hashes only, and no
event.

Each step writes the tiles of one checkpoint, verified against its signed root, and then the
checkpoint. A step that was interrupted is repeated: what is stored already is compared, and never
replaced by something else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import CheckpointInvalid, LogDamaged, ProofInvalid
from ..merkle.checkpoint import MAX_NOTE_BYTES, Checkpoint, LogKey, verify_checkpoint
from ..merkle.proof import compute_root_at_size
from ..merkle.tiles import TILE_WIDTH, Tile, build_tiles, get_tile_path
from ..models import AuditNode
from .cosigned_checkpoints import build_cosigned_note
from .reader import RawCheckpoint, as_bytes, read_checkpoints
from .signing_keys import find_epoch, get_checkpoint_origin
from .tile_store import CHECKPOINT_PATH, TileStore
from .tree_storage import LEVEL_STEP, find_leaf_hashes, read_nodes

LEAVES_PER_STEP = 100_000
"""Leaves in memory at once. A checkpoint covers at most half as many new ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TileExport:
    """The result of an export."""

    tree_size: int
    """Of the exported checkpoint; 0 if there is none."""
    written: int
    """Tiles that were not stored before."""


def export_tiles(
    store: TileStore,
    *,
    keys: Sequence[LogKey],
    progress: Callable[[int], None] = lambda tree_size: None,
) -> TileExport:
    """Export what is new since the checkpoint in the store, up to the newest one.

    keys: of the log. progress: called with the exported size after each step.
    Raises: ProofInvalid if the stored tiles are not those of this log, or the log is damaged;
    CheckpointInvalid; OSError. Spec: C2SP tlog-tiles.
    """
    exported = read_exported_checkpoint(store, keys)
    size = exported.tree_size if exported else 0
    written = 0
    last: RawCheckpoint | None = None
    while row := _find_next_checkpoint(size):
        checkpoint = verify_checkpoint(
            row.note, keys, expected_origin=get_checkpoint_origin(row.epoch)
        )
        written += _export_checkpoint(store, checkpoint, old_size=size)
        store.write(CHECKPOINT_PATH, build_cosigned_note(row.note).encode())
        size = checkpoint.tree_size
        last = row
        progress(size)
    if last is None and exported:
        _add_cosignatures(store, exported)
    return TileExport(tree_size=size, written=written)


def read_exported_checkpoint(store: TileStore, keys: Sequence[LogKey]) -> Checkpoint | None:
    """Return the checkpoint in the store, which this log must continue; None if nothing is exported
    yet.

    Raises: ProofInvalid, CheckpointInvalid; OSError.
    """
    content = store.read(CHECKPOINT_PATH)
    if content is None:
        return None
    checkpoint = verify_checkpoint(content[: MAX_NOTE_BYTES + 1].decode("utf-8", "replace"), keys)
    if find_epoch(checkpoint.origin) is None:
        raise CheckpointInvalid("The exported checkpoint is of another log.")
    try:
        root_hash = compute_root_at_size(checkpoint.tree_size, read_nodes)
    except LogDamaged as error:
        raise ProofInvalid(
            "The log does not reach as far as the exported tiles, or is damaged."
        ) from error
    if root_hash != checkpoint.root_hash:
        raise ProofInvalid(
            "The log does not continue the exported tiles: export it to another place."
        )
    return checkpoint


def _find_next_checkpoint(size: int) -> RawCheckpoint | None:
    """Return the largest checkpoint of one step after size; None if there is none."""
    rows = read_checkpoints(size, limit=1, newest_first=True, below_size=size + LEAVES_PER_STEP + 1)
    rows = rows or read_checkpoints(size, limit=1)
    if rows:
        return rows[0]
    return None


def _export_checkpoint(store: TileStore, checkpoint: Checkpoint, *, old_size: int) -> int:
    """Write the tiles of the checkpoint, and return how many of them were not stored before."""
    tiles = build_tiles(
        old_size=old_size,
        tree_size=checkpoint.tree_size,
        root_hash=checkpoint.root_hash,
        read_level=read_level,
    )
    written = sum(_write_tile(store, tile) for tile in tiles)
    for tile in tiles:
        if tile.is_full and tile.index == (old_size >> LEVEL_STEP * tile.level) // TILE_WIDTH:
            # The tile was partial before.
            store.delete_folder(f"{get_tile_path(tile.level, tile.index)}.p")
    return written


def _write_tile(store: TileStore, tile: Tile) -> bool:
    """Write the tile, and return False if it is stored already. Raises: ProofInvalid if another one
    is stored.
    """
    stored = store.read(tile.path)
    if stored == tile.content:
        return False
    # A shorter file is left by a crash of a storage that does not write atomically.
    if stored is not None and not tile.content.startswith(stored):
        raise ProofInvalid(f"Another tile is stored as {tile.path}: it is kept.")
    store.write(tile.path, tile.content)
    return True


def read_level(level: int, start: int, end: int) -> list[bytes]:
    """Return the roots of the perfect subtrees of 256**level leaves with the indexes [start,
    end).
    """
    if level:
        nodes = AuditNode.objects.filter(
            level=level * LEVEL_STEP, node_index__gte=start, node_index__lt=end
        )
        result = []
        for value in nodes.order_by("node_index").values_list("node_hash", flat=True):
            result.append(as_bytes(value))
        return result
    leaf_hashes = find_leaf_hashes(start, end)
    result = []
    for index in sorted(leaf_hashes):
        result.append(leaf_hashes[index])
    return result


def _add_cosignatures(store: TileStore, exported: Checkpoint) -> None:
    """Replace the stored checkpoint if it has more cosignatures by now."""
    rows = read_checkpoints(exported.tree_size - 1, limit=1, below_size=exported.tree_size + 1)
    if rows:
        note = build_cosigned_note(rows[0].note).encode()
        if store.read(CHECKPOINT_PATH) != note:
            store.write(CHECKPOINT_PATH, note)
