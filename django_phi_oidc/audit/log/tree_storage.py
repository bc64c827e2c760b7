"""The tree over the leaves as the database has it: any perfect subtree in one read of at most 256 rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...merkle.compact import CompactRange, list_perfect_subtrees
from ...merkle.proof import NodeReader
from ...merkle.rfc6962 import HASH_BYTES
from ..models import AuditLeaf, AuditNode
from .reader import as_bytes

LEVEL_STEP = 8
STORED_LEVELS = (8, 16, 24, 32)
"""Levels whose nodes are kept. Beyond 2**40 leaves a read would grow."""


class LogDamaged(LookupError):
    """A leaf or a kept node that must be there is not."""


def read_node(level: int, index: int) -> bytes:
    """Return the root of the perfect subtree over the leaves [index * 2**level, (index + 1) * 2**level).

    Raises: LogDamaged. What is read is NOT verified against anything.
    """
    kept = min(level // LEVEL_STEP * LEVEL_STEP, STORED_LEVELS[-1])
    width = 1 << level - kept
    rows: Any
    if kept:
        rows = AuditNode.objects.filter(level=kept, node_index__gte=index * width, node_index__lt=(index + 1) * width)
        hashes = rows.order_by("node_index").values_list("node_hash", flat=True)
    else:
        rows = AuditLeaf.objects.filter(leaf_index__gte=index * width, leaf_index__lt=(index + 1) * width)
        hashes = rows.order_by("leaf_index").values_list("leaf_hash", flat=True)
    found = [as_bytes(each) for each in hashes]
    if len(found) != width or set(map(len, found)) != {HASH_BYTES}:
        raise LogDamaged(f"Node {index} of level {level} can't be read.")
    subtree = CompactRange()
    subtree.extend(found)
    return subtree.compute_root()


def read_compact_range(tree_size: int, node_reader: NodeReader = read_node) -> CompactRange:
    """Return the tree of its first tree_size leaves, ready to grow. Raises: LogDamaged."""
    return CompactRange(tree_size, [node_reader(level, index) for level, index in list_perfect_subtrees(0, tree_size)])


def build_node_rows(completed_nodes: Mapping[int, tuple[int, Sequence[bytes]]]) -> list[AuditNode]:
    """Return the rows of the nodes that `CompactRange.extend(…, kept=KEPT_LEVELS)` has completed."""
    return [
        AuditNode(level=level, node_index=first + offset, node_hash=node_hash)
        for level, (first, hashes) in completed_nodes.items()
        for offset, node_hash in enumerate(hashes)
    ]
