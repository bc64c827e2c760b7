"""Tiles: the hashes of a log as static files of 256 hashes, from which anybody can compute each
proof.

    tile/0/x001/234    full tile of leaf hashes: those of the leaves [1234 * 256, 1235 * 256)
    tile/1/004.p/210   partial tile at level 1: the first 210 hashes, each the root of a full tile at level 0

A full tile never changes. A partial tile is at the right edge of the tree, and belongs to the
checkpoint of that size.

Spec: C2SP tlog-tiles, "Merkle Tree".
"""  # noqa: E501

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from ..errors import ProofInvalid
from .compact import CompactRange, compute_root_of_subtrees
from .rfc6962 import HASH_BYTES

TILE_WIDTH = 256
"""Hashes in a full tile."""
_TILE_HEIGHT = 8
_GROUP = 1000

LevelReader = Callable[[int, int, int], Sequence[bytes]]
"""Returns the roots of the perfect subtrees of 256**level leaves with the indexes [start, end)."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile and its content."""

    level: int
    index: int
    hashes: tuple[bytes, ...]

    @property
    def is_full(self) -> bool:
        return len(self.hashes) == TILE_WIDTH

    @property
    def content(self) -> bytes:
        return b"".join(self.hashes)

    @property
    def path(self) -> str:
        return get_tile_path(self.level, self.index, len(self.hashes))


def get_tile_path(level: int, index: int, width: int = TILE_WIDTH) -> str:
    """Return the path of a tile below the prefix of the log. Spec: tlog-tiles, "Merkle Tree",
    "Partial Tiles".
    """
    groups = [f"{index % _GROUP:03}"]
    while index := index // _GROUP:
        groups.insert(0, f"x{index % _GROUP:03}")

    if width == TILE_WIDTH:
        suffix = ""
    else:
        suffix = f".p/{width}"

    return f"tile/{level}/{'/'.join(groups)}{suffix}"


def build_tiles(
    *, old_size: int, tree_size: int, root_hash: bytes, read_level: LevelReader
) -> list[Tile]:
    """Return the tiles of a tree that the tree of old_size lacks, and the partial tiles of its
    right edge.

    Each full tile is verified against the hash in the level above, and the right edge against
    root_hash, so the result is what a reader of the tiles would accept. NOT checked: that the tree
    of old_size is a part of this one.
    Requires: 0 <= old_size <= tree_size. Raises: ProofInvalid. Spec: tlog-tiles, "Merkle Tree".
    """
    levels = list(_read_levels(old_size, tree_size, read_level))
    tiles = []
    for level, (start, hashes) in enumerate(levels):
        tiles.append(list(_split_level(level, start, hashes)))
    edge: list[bytes] = []
    for level in reversed(range(len(levels))):
        for tile in tiles[level]:
            nodes = CompactRange()
            nodes.extend(tile.hashes)
            if not tile.is_full:
                edge += nodes.nodes
            elif nodes.compute_root() != _find_parent(levels, level, tile.index):
                raise ProofInvalid(
                    f"The hashes of the tile {tile.path} do not lead to the level above."
                )
    if compute_root_of_subtrees(edge) != root_hash:
        raise ProofInvalid(
            f"The tiles do not lead to the root of the checkpoint of {tree_size} leaves."
        )
    return list(chain.from_iterable(tiles))


def _read_levels(
    old_size: int, tree_size: int, read_level: LevelReader
) -> Iterator[tuple[int, Sequence[bytes]]]:
    """Yield the first index and the hashes of each level, from the start of its first tile that may
    be new.
    """
    level = 0
    while (end := tree_size >> _TILE_HEIGHT * level) > 0:
        start = (old_size >> _TILE_HEIGHT * level) // TILE_WIDTH * TILE_WIDTH
        if start < end:
            hashes = read_level(level, start, end)
        else:
            hashes = []

        if len(hashes) != end - start or any(len(hash_) != HASH_BYTES for hash_ in hashes):
            raise ProofInvalid(f"Hashes of level {level} are missing.")
        yield start, hashes
        level += 1


def _split_level(level: int, start: int, hashes: Sequence[bytes]) -> Iterator[Tile]:
    for offset in range(0, len(hashes), TILE_WIDTH):
        yield Tile(
            level, (start + offset) // TILE_WIDTH, tuple(hashes[offset : offset + TILE_WIDTH])
        )


def _find_parent(
    levels: Sequence[tuple[int, Sequence[bytes]]], level: int, index: int
) -> bytes | None:
    if level + 1 < len(levels):
        start, hashes = levels[level + 1]
    else:
        start = 0
        hashes = ()
    if 0 <= index - start < len(hashes):
        return hashes[index - start]
    return None
