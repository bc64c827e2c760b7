"""Tiles: paths, contents and sizes of the specification, and hashes that do not fit. Spec: C2SP tlog-tiles."""

from collections.abc import Callable, Sequence
from functools import cache

import pytest

from django_phi_oidc.audit.errors import ProofInvalid
from django_phi_oidc.audit.merkle.compact import CompactRange
from django_phi_oidc.audit.merkle.rfc6962 import hash_leaf
from django_phi_oidc.audit.merkle.tiles import Tile, build_tiles, get_tile_path

LEAVES = [hash_leaf(str(number).encode()) for number in range(70_000)]


@cache
def level_of(level: int) -> list[bytes]:
    """Return the roots of all full subtrees of 256**level leaves."""
    if level == 0:
        return LEAVES
    below = level_of(level - 1)
    return [root_of(below[start : start + 256]) for start in range(0, len(below) - 255, 256)]


def root_of(hashes: Sequence[bytes]) -> bytes:
    tree = CompactRange()
    tree.extend(hashes)
    return tree.compute_root()


Change = Callable[[int, list[bytes]], object]


def tiles_of(size: int, *, old_size: int = 0, change: Change = lambda *_: None) -> list[Tile]:
    def read_level(level: int, start: int, end: int) -> list[bytes]:
        hashes = level_of(level)[start:end]
        change(level, hashes)
        return hashes

    return build_tiles(old_size=old_size, tree_size=size, root_hash=root_of(LEAVES[:size]), read_level=read_level)


@pytest.mark.parametrize(
    ("index", "path"),
    [(0, "000"), (999, "999"), (1000, "x001/000"), (1234067, "x001/x234/067"), (10**9, "x001/x000/x000/000")],
)
def test_path_is_that_of_the_specification(index: int, path: str) -> None:
    assert get_tile_path(0, index) == f"tile/0/{path}"
    assert get_tile_path(3, index, 17) == f"tile/3/{path}.p/17"


def test_tiles_of_the_example_of_the_specification() -> None:
    """70,000 entries: 273 full tiles and one of 112 hashes, one full tile and one of 17, and one of a single hash."""
    tiles = tiles_of(70_000)
    widths = {level: [len(tile.hashes) for tile in tiles if tile.level == level] for level in (0, 1, 2)}
    assert widths == {0: [256] * 273 + [112], 1: [256, 17], 2: [1]}
    assert [tile.path for tile in tiles[-4:]] == ["tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1"]
    assert tiles[-1].hashes == (root_of(LEAVES[:65_536]),)
    assert len(tiles[0].content) == 8192


@pytest.mark.parametrize(
    ("size", "paths"),
    [
        (0, []),
        (1, ["tile/0/000.p/1"]),
        (255, ["tile/0/000.p/255"]),
        (256, ["tile/0/000", "tile/1/000.p/1"]),
        (257, ["tile/0/000", "tile/0/001.p/1", "tile/1/000.p/1"]),
    ],
)
def test_tiles_of_small_trees(size: int, paths: list[str]) -> None:
    assert [tile.path for tile in tiles_of(size)] == paths


@pytest.mark.parametrize("old_size", [0, 1, 255, 256, 300, 65_535, 65_536, 69_000, 70_000])
def test_new_tiles_complete_the_old_ones(old_size: int) -> None:
    full = {tile.path for tile in tiles_of(70_000) if tile.is_full}
    assert {tile.path for tile in tiles_of(old_size) if tile.is_full} | {
        tile.path for tile in tiles_of(70_000, old_size=old_size) if tile.is_full
    } == full
    assert len(tiles_of(70_000, old_size=old_size)) <= len(tiles_of(70_000))


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("place", [0, -1], ids=["first", "last"])
def test_hash_that_does_not_lead_to_the_root_is_refused(level: int, place: int) -> None:
    def change(at: int, hashes: list[bytes]) -> None:
        if at == level:
            hashes[place] = bytes(32)

    assert tiles_of(70_000)
    with pytest.raises(ProofInvalid, match="do not lead to"):
        tiles_of(70_000, change=change)


@pytest.mark.parametrize("change", [lambda _, hashes: hashes.pop(), lambda _, hashes: hashes.append(b"short")])
def test_missing_or_short_hashes_are_refused(change: Change) -> None:
    with pytest.raises(ProofInvalid, match="missing"):
        tiles_of(300, change=change)
