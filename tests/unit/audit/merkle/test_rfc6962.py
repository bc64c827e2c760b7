"""The hashes of leaves and nodes. Spec: RFC 6962 2.1."""

from hashlib import sha256

from django_phi_oidc.audit.merkle.rfc6962 import EMPTY_ROOT, HASH_BYTES, hash_leaf, hash_node
from tests.unit.audit.merkle import published_vectors as published


def test_empty_root_is_the_hash_of_nothing() -> None:
    assert published.ROOTS[0] == EMPTY_ROOT
    assert len(EMPTY_ROOT) == HASH_BYTES


def test_leaf_hash_published_leaf_is_the_root_of_one() -> None:
    assert hash_leaf(published.INPUTS[0]) == published.ROOTS[1]


def test_node_hash_two_published_leaves_is_the_root_of_two() -> None:
    assert hash_node(*map(hash_leaf, published.INPUTS[:2])) == published.ROOTS[2]


def test_leaf_hash_of_two_node_hashes_is_not_their_node() -> None:
    left, right = map(hash_leaf, published.INPUTS[:2])
    assert hash_leaf(left + right) != hash_node(left, right)
    assert sha256(left + right).digest() not in (hash_leaf(left + right), hash_node(left, right))
