"""Read the tree from the database: any perfect subtree by one query of at most 256 rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...merkle.compact import CompactRange, list_perfect_subtrees
from ...merkle.proof import NodeReader
from ...merkle.rfc6962 import HASH_BYTES
from ..models import AuditLeaf, AuditNode
from .reader import as_bytes

LEVEL_STEP = 8
STORED_LEVELS = (8, 16, 24, 32)
"""Levels whose nodes are stored. Beyond 2**40 leaves one query would read more rows."""


class LogDamaged(LookupError):
    """A leaf or a stored node is missing."""


def read_node(level: int, index: int) -> bytes:
    """Return the root of the perfect subtree over the leaves [index * 2**level, (index + 1) * 2**level).

    Raises: LogDamaged. What is read is NOT verified against anything.
    """
    stored_level = min(level // LEVEL_STEP * LEVEL_STEP, STORED_LEVELS[-1])
    width = 1 << level - stored_level
    indexes = range(index * width, (index + 1) * width)
    rows: Any
    if stored_level:
        rows = AuditNode.objects.filter(level=stored_level, node_index__gte=indexes.start, node_index__lt=indexes.stop)
        rows = rows.order_by("node_index").values_list("node_hash", flat=True)
    else:
        rows = AuditLeaf.objects.filter(leaf_index__gte=indexes.start, leaf_index__lt=indexes.stop)
        rows = rows.order_by("leaf_index").values_list("leaf_hash", flat=True)
    hashes = [as_bytes(value) for value in rows]
    if len(hashes) != width or set(map(len, hashes)) != {HASH_BYTES}:
        raise LogDamaged(f"Node {index} of level {level} can't be read.")
    subtree = CompactRange()
    subtree.extend(hashes)
    return subtree.compute_root()


def read_compact_range(tree_size: int, node_reader: NodeReader = read_node) -> CompactRange:
    """Return the compact range of the first `tree_size` leaves. Raises: LogDamaged."""
    return CompactRange(tree_size, [node_reader(level, index) for level, index in list_perfect_subtrees(0, tree_size)])


def build_node_rows(completed_nodes: Mapping[int, tuple[int, Sequence[bytes]]]) -> list[AuditNode]:
    """Return the rows of the nodes that `CompactRange.extend(…, kept_levels=STORED_LEVELS)` has completed."""
    return [
        AuditNode(level=level, node_index=first + offset, node_hash=node_hash)
        for level, (first, hashes) in completed_nodes.items()
        for offset, node_hash in enumerate(hashes)
    ]
