"""Inclusion and consistency proofs. Nothing here stores or fetches nodes. Spec: RFC 6962 2.1.

A proof is the list of siblings on the path from a subtree to the root. An inclusion proof starts at
a leaf. A consistency proof starts at the last perfect subtree of the old tree, which is also a
subtree of the new one: siblings to its left belong to both trees, those to its right only to the
new one. Verification computes and compares the roots.
"""

from collections.abc import Callable, Sequence
from itertools import chain, islice

from ..errors import ProofInvalid
from .compact import compute_root_of_subtrees, list_perfect_subtrees
from .rfc6962 import EMPTY_ROOT, HASH_BYTES, MAX_TREE_SIZE, hash_node

Proof = Sequence[bytes]
NodesReader = Callable[[Sequence[tuple[int, int]]], Sequence[bytes]]
"""Returns the roots of perfect subtrees, given by level and index, in the same order."""


def compute_root_at_size(tree_size: int, read_nodes: NodesReader) -> bytes:
    """Return the root hash of the log at tree_size. Requires: read_nodes has the nodes below that
    size.
    """
    return _compute_subtree_roots([(0, tree_size)], read_nodes)[0]


def build_inclusion_proof(leaf_index: int, tree_size: int, read_nodes: NodesReader) -> list[bytes]:
    """Return the proof for a leaf in the tree with tree_size leaves. Reads at most about 2 *
    log2(tree_size) nodes.

    Requires: 0 <= leaf_index < tree_size. Raises: ValueError. Spec: RFC 6962 2.1.1, PATH.
    """
    if not 0 <= leaf_index < tree_size:
        raise ValueError("The leaf is not in the tree.")
    return _compute_subtree_roots(
        _list_siblings((leaf_index, leaf_index + 1), tree_size), read_nodes
    )


def build_consistency_proof(old_size: int, new_size: int, read_nodes: NodesReader) -> list[bytes]:
    """Return the proof that the tree at new_size extends the tree at old_size.

    Requires: 0 <= old_size <= new_size. The RFC does not define 0 and equal sizes; here their proof
    is empty.
    Raises: ValueError. Spec: RFC 6962 2.1.2, PROOF.
    """
    if not 0 <= old_size <= new_size:
        raise ValueError("The old tree is larger than the new one.")
    if old_size in (0, new_size):
        return []
    edge = _get_last_perfect_subtree(old_size)
    # If the old tree is perfect, the path starts at its root, which the verifier has.
    if edge[0]:
        start = [edge]
    else:
        start = []

    return _compute_subtree_roots([*start, *_list_siblings(edge, new_size)], read_nodes)


def verify_inclusion(
    *, leaf_hash: bytes, leaf_index: int, tree_size: int, proof: Proof, root_hash: bytes
) -> None:
    """Return if the leaf is at leaf_index in the tree with tree_size leaves and root_hash.

    NOT checked: the origin of root_hash, and that tree_size belongs to it, since a proof can be
    valid for several sizes. Take both from a verified checkpoint. Raises: ProofInvalid. Spec: RFC
    9162 2.1.3.2.
    """
    if not 0 <= leaf_index < tree_size <= MAX_TREE_SIZE:
        raise ProofInvalid("The leaf is not in the tree.")
    siblings = _list_siblings((leaf_index, leaf_index + 1), tree_size)
    _validate_hash_lengths([leaf_hash, root_hash, *proof])
    _validate_proof_length(proof, len(siblings))
    root = leaf_hash
    for (start, _), node in zip(siblings, proof, strict=True):
        if start < leaf_index:
            root = hash_node(node, root)
        else:
            root = hash_node(root, node)
    if root != root_hash:
        raise ProofInvalid("The inclusion proof does not lead to the root.")


def verify_consistency(
    *, old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Proof
) -> None:
    """Return if the new tree extends the old tree, so that no leaf was changed or removed.

    Every tree extends the empty tree and itself. NOT checked: the origin of the roots.
    Raises: ProofInvalid. Spec: RFC 9162 2.1.4.2.
    """
    if not 0 <= old_size <= new_size <= MAX_TREE_SIZE:
        raise ProofInvalid("The old tree is larger than the new one.")
    _validate_hash_lengths([old_root, new_root, *proof])
    if old_size in (0, new_size):
        _validate_proof_length(proof, 0)

        if old_size:
            expected_root = new_root
        else:
            expected_root = EMPTY_ROOT

        if old_root != expected_root or (new_size == 0 and new_root != EMPTY_ROOT):
            raise ProofInvalid("The same tree has two roots.")
        return
    edge = _get_last_perfect_subtree(old_size)
    siblings = _list_siblings(edge, new_size)

    if edge[0]:
        path = [*proof]
    else:
        path = [old_root, *proof]

    _validate_proof_length(path, 1 + len(siblings))
    old = new = path[0]
    for (start, _), node in zip(siblings, path[1:], strict=True):
        if start < edge[0]:
            old = hash_node(node, old)
            new = hash_node(node, new)
        else:
            new = hash_node(new, node)
    if (old, new) != (old_root, new_root):
        raise ProofInvalid("The consistency proof does not lead to both roots.")


def _list_siblings(subtree: tuple[int, int], tree_size: int) -> list[tuple[int, int]]:
    """Return the leaves [start, end) of each sibling on the path from subtree to the root."""
    start = 0
    end = tree_size
    siblings = []
    while end - start > subtree[1] - subtree[0]:
        middle = start + (1 << (end - start - 1).bit_length() - 1)
        if subtree[0] < middle:
            siblings.append((middle, end))
            end = middle
        else:
            siblings.append((start, middle))
            start = middle
    return siblings[::-1]


def _get_last_perfect_subtree(size: int) -> tuple[int, int]:
    """Return the leaves of the last and smallest perfect subtree of a tree. Requires: size > 0."""
    return size & (size - 1), size


def _compute_subtree_roots(
    subtrees: Sequence[tuple[int, int]], read_nodes: NodesReader
) -> list[bytes]:
    """Return the roots over the leaves [start, end) of each subtree. All nodes are read at once."""
    places = []
    for subtree in subtrees:
        places.append(list_perfect_subtrees(*subtree))
    nodes = iter(read_nodes(list(chain.from_iterable(places))))
    subtree_roots = []
    for part in places:
        subtree_roots.append(compute_root_of_subtrees(islice(nodes, len(part))))
    return subtree_roots


def _validate_hash_lengths(hashes: Sequence[bytes]) -> None:
    if any(len(node) != HASH_BYTES for node in hashes):
        raise ProofInvalid(f"A hash has {HASH_BYTES} bytes.")


def _validate_proof_length(path: Sequence[bytes], length: int) -> None:
    if len(path) != length:
        raise ProofInvalid("The proof is too short or too long for these sizes.")
