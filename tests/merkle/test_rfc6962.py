"""The hashes of leaves and nodes. Spec: RFC 6962 2.1."""

from hashlib import sha256

from django_phi_oidc.merkle.rfc6962 import EMPTY_ROOT, HASH_BYTES, leaf_hash, node_hash
from tests.merkle import published


def test_empty_root_is_the_hash_of_nothing() -> None:
    assert published.ROOTS[0] == EMPTY_ROOT
    assert len(EMPTY_ROOT) == HASH_BYTES


def test_leaf_hash_published_leaf_is_the_root_of_one() -> None:
    assert leaf_hash(published.INPUTS[0]) == published.ROOTS[1]


def test_node_hash_two_published_leaves_is_the_root_of_two() -> None:
    assert node_hash(*map(leaf_hash, published.INPUTS[:2])) == published.ROOTS[2]


def test_leaf_hash_of_what_a_node_is_made_of_is_no_node() -> None:
    left, right = map(leaf_hash, published.INPUTS[:2])
    assert leaf_hash(left + right) != node_hash(left, right)
    assert sha256(left + right).digest() not in (leaf_hash(left + right), node_hash(left, right))
