"""Which leaves may leave the database: those of archived events, if the exported tiles have their
hashes.

The tiles are verified, up to the signed root of the exported checkpoint, before the leaves leave:
from then on the hashes of these leaves are read from the tiles.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

from ..errors import CheckpointInvalid, ProofInvalid
from ..merkle.checkpoint import LogKey
from ..merkle.compact import CompactRange
from ..merkle.rfc6962 import HASH_BYTES
from ..merkle.tiles import TILE_WIDTH, get_tile_path
from ..partition_contents import list_leaves_of
from ..partitions import LEAF_TABLE, Partition, list_past_partitions
from .archive import LogArchive
from .archive_records import LeafRange
from .cursor import get_newest_tree_size
from .tile_export import read_exported_checkpoint, read_level
from .tile_store import TileStore, find_tile_store
from .tree_storage import STORED_LEVELS, split_tile


def list_removable_leaves(
    archive: LogArchive, *, removed: Sequence[Partition], keys: Sequence[LogKey], now: datetime
) -> tuple[dict[Partition, list[LeafRange]], str]:
    """Return the partitions of leaves that may leave with these partitions of events, and a
    sentence why one stays.

    With the leaves of each. None without declared tiles. Includes those whose events were detached
    before. The last leaf of the log stays: the sequencer continues from it.
    Requires: the archive was verified, and the earlier archives hold all events before it.
    Raises: LookupError if a tile is missing, was altered, or is of another log; OSError.
    """
    store = find_tile_store()
    if store is None:
        return {}, ""
    removable: dict[Partition, list[LeafRange]] = {}
    reason = ""
    tree_size = get_newest_tree_size()
    try:
        exported = read_exported_checkpoint(store, keys)
        if exported:
            exported_size = exported.tree_size
        else:
            exported_size = 0

        for partition in list_past_partitions(LEAF_TABLE, now=now):
            leaves = list_leaves_of(partition, removed=removed)
            if not leaves or leaves[-1][1] > archive.tree_size:
                continue
            if leaves[-1][1] == tree_size:
                reason = f" {partition.name} stays: it has the last leaf of the log."
                continue
            start = leaves[0][0] // TILE_WIDTH
            end = -(-leaves[-1][1] // TILE_WIDTH)
            if exported is None or end * TILE_WIDTH > exported_size:
                needed = end * TILE_WIDTH
                reason = (
                    f" {partition.name} stays: the tiles have "
                    f"{exported_size} events, and {needed} are needed."
                )
                continue
            _verify_tiles(store, start, end, exported_size)
            removable[partition] = leaves
    except (ProofInvalid, CheckpointInvalid, ValueError) as error:
        raise LookupError(str(error)) from error
    return removable, reason


def _verify_tiles(store: TileStore, start: int, end: int, tree_size: int) -> None:
    """Check that the tiles of leaves with the indexes [start, end) lead to the root of the exported
    checkpoint.

    They are compared with their stored nodes, and these, block by block, with the stored nodes
    above them. The highest ones, and those of a block that is not full, lead to the root:
    `read_exported_checkpoint` reads them.
    Requires: the exported checkpoint of tree_size leaves was read. Raises: ProofInvalid.
    """
    for first, stop in _split_into_blocks(start, end):
        roots = [_compute_tile_root(store, index) for index in range(first, stop)]
        if roots != read_level(1, first, stop):
            raise ProofInvalid(
                f"The tiles {first} to {stop - 1} do not lead to the exported checkpoint."
            )
    for level in range(1, len(STORED_LEVELS)):
        start = start // TILE_WIDTH
        end = -(-end // TILE_WIDTH)
        for index in range(start, min(end, tree_size >> STORED_LEVELS[level])):
            nodes = read_level(level, index * TILE_WIDTH, (index + 1) * TILE_WIDTH)
            if [_compute_root(nodes)] != read_level(level + 1, index, index + 1):
                raise ProofInvalid("The stored nodes of the log are damaged: run `audit verify`.")


def _split_into_blocks(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of [start, end) that have the same node above them."""
    while start < end:
        stop = min(end, (start // TILE_WIDTH + 1) * TILE_WIDTH)
        yield start, stop
        start = stop


def _compute_root(hashes: Sequence[bytes]) -> bytes:
    tree = CompactRange()
    tree.extend(hashes)
    return tree.compute_root()


def _compute_tile_root(store: TileStore, index: int) -> bytes:
    content = store.read(get_tile_path(0, index)) or b""
    if len(content) != TILE_WIDTH * HASH_BYTES:
        raise ProofInvalid(f"The tile {get_tile_path(0, index)} is missing, or is not full.")
    return _compute_root(split_tile(content))
