"""Extension of a Merkle tree without its earlier leaves. Spec: RFC 6962 2.1."""

from collections.abc import Collection, Iterable, Sequence

from .rfc6962 import EMPTY_ROOT, HASH_BYTES, hash_node


class CompactRange:
    """A tree stored as the roots of its perfect subtrees: at most 63 hashes for any size."""

    def __init__(self, size: int = 0, nodes: Sequence[bytes] = ()) -> None:
        """nodes: the perfect subtrees of a tree with size leaves, from left to right, the largest
        first.

        Requires: one node for each bit set in size. NOT checked: that they are the hashes of such a
        tree.
        Raises: ValueError.
        """
        if size < 0 or len(nodes) != size.bit_count():
            raise ValueError("A tree has one node for each bit set in its size.")
        _validate_hash_lengths(nodes)
        self.size = size
        self._nodes = list(nodes)

    @property
    def nodes(self) -> tuple[bytes, ...]:
        """The roots of the perfect subtrees, from left to right, the largest first, as `nodes` of a
        new instance.
        """
        return tuple(self._nodes)

    def compute_root(self) -> bytes:
        """Return the root hash of the tree. Spec: RFC 6962 2.1, MTH."""
        return compute_root_of_subtrees(self._nodes)

    def extend(
        self, leaf_hashes: Sequence[bytes], *, kept_levels: Collection[int] = ()
    ) -> dict[int, tuple[int, list[bytes]]]:
        """Append leaves and return the newly completed nodes on kept_levels.

        Maps each of these levels with new nodes to the index of the first one and their hashes in
        order. Takes about a microsecond per leaf. If leaf_hashes are refused, the tree is
        unchanged.
        Raises: ValueError if a hash is not HASH_BYTES long.
        """
        _validate_hash_lengths(leaf_hashes)
        completed: dict[int, tuple[int, list[bytes]]] = {}
        unpaired: list[bytes] = []
        level = 0
        count = self.size
        nodes = list(leaf_hashes)
        while nodes:
            if level in kept_levels:
                completed[level] = count, nodes
            if count % 2:
                nodes = [self._nodes.pop(), *nodes]
            if len(nodes) % 2:
                unpaired.append(nodes[-1])
            nodes = list(map(hash_node, nodes[0::2], nodes[1::2]))
            level = level + 1
            count = count // 2
        self._nodes += reversed(unpaired)
        self.size += len(leaf_hashes)
        return completed


def list_perfect_subtrees(start: int, end: int) -> list[tuple[int, int]]:
    """Return level and index of the perfect subtrees that cover the leaves [start, end), from left
    to right.

    Requires: [start, end) is a subtree: start is a multiple of a power of two that is at least end
    - start.
    Raises: ValueError. Spec: RFC 6962 2.1: each split leaves the largest power of two to the left.
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
    """Return the root of the tree of these perfect subtrees, from left to right. Spec: RFC 6962
    2.1, MTH.
    """
    root = b""
    for node in reversed(list(nodes)):
        if root:
            root = hash_node(node, root)
        else:
            root = node
    return root or EMPTY_ROOT


def _validate_hash_lengths(hashes: Iterable[bytes]) -> None:
    # hash_node concatenates its arguments, so only fixed lengths make the result unambiguous.
    if set(map(len, hashes)) - {HASH_BYTES}:
        raise ValueError(f"A hash has {HASH_BYTES} bytes.")
