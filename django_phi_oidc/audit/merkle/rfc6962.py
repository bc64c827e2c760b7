"""The hashes of a Merkle tree, with separate prefixes for leaves and nodes. Spec: RFC 6962 2.1 with
SHA-256.
"""

from hashlib import sha256

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()
"""The root of a tree without leaves."""
MAX_TREE_SIZE = 2**63 - 1
"""Leaves. RFC 6962 3.4 uses 64 bits, databases 63. It also bounds the work for an untrusted
size.
"""

_LEAF_PREFIX = b"\x00"
_NODE_PREFIX = b"\x01"


def hash_leaf(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return sha256(_LEAF_PREFIX + data).digest()


def hash_node(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node over two nodes. Requires: HASH_BYTES each, which is NOT checked
    here.
    """
    return sha256(_NODE_PREFIX + left + right).digest()
