"""The hashes of a Merkle tree, in which no leaf can pass for a node. Spec: RFC 6962 2.1 with SHA-256."""

from hashlib import sha256

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()
"""The root of a tree without leaves."""
MAX_TREE_SIZE = 2**63 - 1
"""Leaves. RFC 6962 3.4 counts in 64 bits, a database in 63. It also bounds the work on a size from outside."""

_LEAF_PREFIX = b"\x00"
_NODE_PREFIX = b"\x01"


def hash_leaf(data: bytes) -> bytes:
    """Return the hash of the leaf that data is."""
    return sha256(_LEAF_PREFIX + data).digest()


def hash_node(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node over two others. Requires: HASH_BYTES each, which is NOT checked here."""
    return sha256(_NODE_PREFIX + left + right).digest()
