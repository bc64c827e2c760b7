"""Growing a Merkle tree from its right edge, without the leaves before it. Spec: RFC 6962 2.1."""

from collections.abc import Collection, Iterable, Sequence

from .rfc6962 import EMPTY_ROOT, HASH_BYTES, hash_node


class CompactRange:
    """A tree of which only the roots of its perfect subtrees are held: at most 63 hashes, whatever its size."""

    def __init__(self, size: int = 0, nodes: Sequence[bytes] = ()) -> None:
        """nodes: the perfect subtrees that make up a tree of size leaves, from left to right, the largest first.

        Requires: a node for each bit that is set in size. NOT checked: that they are the hashes of such a tree.
        Raises: ValueError.
        """
        if size < 0 or len(nodes) != size.bit_count():
            raise ValueError("A tree has one node for each bit that is set in its size.")
        _validate_hash_lengths(nodes)
        self.size = size
        self._nodes = list(nodes)

    @property
    def nodes(self) -> tuple[bytes, ...]:
        """The roots of the perfect subtrees, from left to right, the largest first: what the next one is made from."""
        return tuple(self._nodes)

    def compute_root(self) -> bytes:
        """Return the root hash of the tree. Spec: RFC 6962 2.1, MTH."""
        return compute_root_of_subtrees(self._nodes)

    def extend(
        self, leaf_hashes: Sequence[bytes], *, kept_levels: Collection[int] = ()
    ) -> dict[int, tuple[int, list[bytes]]]:
        """Append leaves, and return the nodes that are whole now and were not before, on the levels that are kept.

        For each such level with a new node: the index of the first one, and their hashes in order. It works level by
        level: about a microsecond for each leaf. The tree is as it was when leaf_hashes are refused.

        Raises: ValueError when one is not HASH_BYTES long.
        """
        _validate_hash_lengths(leaf_hashes)
        completed: dict[int, tuple[int, list[bytes]]] = {}
        unpaired: list[bytes] = []
        level, whole, nodes = 0, self.size, list(leaf_hashes)
        while nodes:
            if level in kept_levels:
                completed[level] = whole, nodes
            if whole % 2:
                nodes = [self._nodes.pop(), *nodes]
            if len(nodes) % 2:
                unpaired.append(nodes[-1])
            nodes = list(map(hash_node, nodes[0::2], nodes[1::2]))
            level, whole = level + 1, whole // 2
        self._nodes += reversed(unpaired)
        self.size += len(leaf_hashes)
        return completed


def list_perfect_subtrees(start: int, end: int) -> list[tuple[int, int]]:
    """Return level and index of the perfect subtrees, from left to right, whose leaves together are [start, end).

    Requires: [start, end) is a subtree of a tree: start is a multiple of a power of two that is not below end - start.
    Raises: ValueError.
    Spec: RFC 6962 2.1: each split leaves the largest power of two to the left.
    """
    width = end - start
    if start < 0 or width < 0 or start % (1 << max(width - 1, 0).bit_length()):
        raise ValueError("No tree has a subtree of these leaves.")
    subtrees = []
    for level in reversed(range(width.bit_length())):
        if width >> level & 1:
            subtrees.append((level, start >> level))
            start += 1 << level
    return subtrees


def compute_root_of_subtrees(nodes: Iterable[bytes]) -> bytes:
    """Return the root of the tree that these perfect subtrees make up, from left to right. Spec: RFC 6962 2.1, MTH."""
    root = b""
    for node in reversed(list(nodes)):
        root = hash_node(node, root) if root else node
    return root or EMPTY_ROOT


def _validate_hash_lengths(hashes: Iterable[bytes]) -> None:
    # The hash over two nodes does not tell where the left one ends: lengths are what separates them.
    if set(map(len, hashes)) - {HASH_BYTES}:
        raise ValueError(f"A hash has {HASH_BYTES} bytes.")
