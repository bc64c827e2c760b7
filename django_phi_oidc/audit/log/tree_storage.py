"""Read the tree from the database: all perfect subtrees of a proof by one query.

The leaves of a detached partition are in no row. Their hashes are read from the exported tiles.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache

from django.db import connections

from ...errors import AuditUnavailable
from ..errors import LogDamaged
from ..merkle.compact import CompactRange, list_perfect_subtrees
from ..merkle.rfc6962 import HASH_BYTES, hash_node
from ..merkle.tiles import TILE_WIDTH, get_tile_path
from ..models import AuditLeaf, AuditNode
from ..router import AUDIT_ALIAS
from .reader import as_bytes
from .tile_store import CHECKPOINT_PATH, find_tile_store

LEVEL_STEP = 8
STORED_LEVELS = (8, 16, 24, 32)
"""Levels whose nodes are stored. Beyond 2**40 leaves one query would read more rows."""
_CACHED_TILES = 64
"""Of 20 KB each. The path of a proof reads up to eight nodes of the same tile."""


def read_node(level: int, index: int) -> bytes:
    """Return the root of the perfect subtree over the leaves [index * 2**level, (index + 1) *
    2**level).

    Raises: LogDamaged; AuditUnavailable if a tile is needed, and the tiles cannot be read. What is
    read is NOT verified against anything.
    """
    return read_nodes([(level, index)])[0]


def read_nodes(places: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return what `read_node` returns for each level and index, by one query. Raises:
    LogDamaged.
    """
    ranges = [_get_stored_range(level, index) for level, index in places]
    stored = _read_stored_hashes(ranges)
    nodes = []
    for (level, index), (stored_level, start, end) in zip(places, ranges, strict=True):
        # A size that nothing signed may need more hashes than memory can hold.
        is_complete = end - start <= len(stored)
        if is_complete:
            hashes = []
            for place in range(start, end):
                hashes.append(stored.get((stored_level, place), b""))
        else:
            hashes = []

        if set(map(len, hashes)) != {HASH_BYTES}:
            raise LogDamaged(f"Node {index} of level {level} can't be read.")
        while len(hashes) > 1:
            hashes = list(map(hash_node, hashes[0::2], hashes[1::2]))
        nodes += hashes
    return nodes


def _get_stored_range(level: int, index: int) -> tuple[int, int, int]:
    """Return the level of the hashes from which a node is computed, 0 for leaves, the first one,
    and the end.
    """
    stored_level = min(level // LEVEL_STEP * LEVEL_STEP, STORED_LEVELS[-1])
    width = 1 << level - stored_level
    return stored_level, index * width, (index + 1) * width


def _read_stored_hashes(ranges: Sequence[tuple[int, int, int]]) -> dict[tuple[int, int], bytes]:
    """Return the hashes of ranges, given by level, start and end, by level and index, without those
    that are missing.

    The ranges of a proof in one block of TILE_WIDTH hashes are adjacent, except for the path
    itself: one condition.
    """
    blocks: dict[tuple[int, int], tuple[int, int]] = {}
    for level, start, end in ranges:
        block = level, start // TILE_WIDTH
        first, last = blocks.get(block, (start, end))
        blocks[block] = min(first, start), max(last, end)
    parts = [_build_hashes_sql(level, start, end) for (level, _), (start, end) in blocks.items()]
    hashes: dict[tuple[int, int], bytes] = {}
    if parts:
        with connections[AUDIT_ALIAS].cursor() as cursor:
            cursor.execute(" UNION ALL ".join(parts))
            for level, index, value in cursor.fetchall():
                hashes[level, index] = as_bytes(value)
    for (level, _), (start, end) in blocks.items():
        if level == 0 and any((0, index) not in hashes for index in range(start, end)):
            for index, leaf_hash in find_leaf_hashes(start, end).items():
                hashes[0, index] = leaf_hash
    return hashes


def _build_hashes_sql(level: int, start: int, end: int) -> str:
    if level:
        source = (
            "node_index, node_hash FROM phi_oidc_audit_auditnode "
            f"WHERE level = {level:d} AND node_index"
        )
    else:
        source = "leaf_index, leaf_hash FROM phi_oidc_audit_auditleaf WHERE leaf_index"
    return f"SELECT {level:d}, {source} BETWEEN {start:d} AND {end - 1:d}"


def find_leaf_hashes(start: int, end: int) -> dict[int, bytes]:
    """Return the hashes of the leaves [start, end) by index: of their rows, or of their tiles if
    rows are missing.

    Without those that neither has. NOT verified: the rows. A tile leads to its stored node.
    Raises: AuditUnavailable if the tiles are needed, and cannot be read.
    """
    rows = AuditLeaf.objects.filter(leaf_index__gte=start, leaf_index__lt=end).values_list(
        "leaf_index", "leaf_hash"
    )
    hashes = {leaf_index: as_bytes(value) for leaf_index, value in rows}
    if len(hashes) < end - start:
        nodes = AuditNode.objects.filter(
            level=LEVEL_STEP,
            node_index__gte=start // TILE_WIDTH,
            node_index__lt=-(-end // TILE_WIDTH),
        )
        needed = set()
        for index in range(start, end):
            if index not in hashes:
                needed.add(index // TILE_WIDTH)
        for tile_index, node_hash in nodes.values_list("node_index", "node_hash"):
            if tile_index in needed:
                tile = _read_tile(tile_index, as_bytes(node_hash))
                for leaf_index, value in enumerate(tile, start=tile_index * TILE_WIDTH):
                    if start <= leaf_index < end:
                        hashes.setdefault(leaf_index, value)
    return hashes


def find_absent_leaf_hashes(start: int, end: int) -> dict[int, bytes]:
    """Return `find_leaf_hashes`, or nothing if each leaf has a row. Raises: AuditUnavailable."""
    if AuditLeaf.objects.filter(leaf_index__gte=start, leaf_index__lt=end).count() == end - start:
        return {}
    return find_leaf_hashes(start, end)


def split_tile(content: bytes) -> list[bytes]:
    """Return the hashes of a tile."""
    tile = []
    for start in range(0, len(content), HASH_BYTES):
        tile.append(content[start : start + HASH_BYTES])
    return tile


def _read_tile(tile_index: int, node_hash: bytes) -> Sequence[bytes]:
    """Return the leaf hashes of a full tile; none if there is no tile whose root is node_hash.

    Raises: AuditUnavailable.
    """
    # Only what was found is cached: the tile may come back.
    with suppress(LogDamaged):
        return _get_tile(tile_index, node_hash)
    return ()


@lru_cache(maxsize=_CACHED_TILES)
def _get_tile(tile_index: int, node_hash: bytes) -> tuple[bytes, ...]:
    """Return the leaf hashes of a full tile, whose root is node_hash. Raises: LogDamaged,
    AuditUnavailable.
    """
    store = find_tile_store()
    try:
        if store:
            content = store.read(get_tile_path(0, tile_index))
        else:
            content = b""
        if store and content is None and store.read(CHECKPOINT_PATH) is None:
            # The checkpoint is missing, too. The folder may not be mounted: this is an outage, and
            # no evidence that a tile was deleted.
            raise AuditUnavailable("The tiles of the audit log are not at their place.")
    except OSError as error:
        raise AuditUnavailable("The tiles of the audit log can't be read.") from error
    hashes = split_tile(content or b"")
    tree = CompactRange()
    if content and len(content) == TILE_WIDTH * HASH_BYTES:
        tree.extend(hashes)
    if tree.compute_root() != node_hash:
        raise LogDamaged(f"The tile {tile_index} can't be read.")
    return tuple(hashes)


def read_compact_range(tree_size: int) -> CompactRange:
    """Return the compact range of the first `tree_size` leaves. Raises: LogDamaged."""
    return CompactRange(tree_size, read_nodes(list_perfect_subtrees(0, tree_size)))


def build_node_rows(completed_nodes: Mapping[int, tuple[int, Sequence[bytes]]]) -> list[AuditNode]:
    """Return the rows of the nodes that `CompactRange.extend(…, kept_levels=STORED_LEVELS)` has
    completed.
    """
    node_rows = []
    for level, (first, hashes) in completed_nodes.items():
        for offset, node_hash in enumerate(hashes):
            node_rows.append(AuditNode(level=level, node_index=first + offset, node_hash=node_hash))
    return node_rows
