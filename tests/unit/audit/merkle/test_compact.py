"""Growing a tree, compared with the definitions of the RFC. Spec: RFC 6962 2.1."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc.audit.merkle.compact import (
    CompactRange,
    compute_root_of_subtrees,
    list_perfect_subtrees,
)
from django_phi_oidc.audit.merkle.rfc6962 import EMPTY_ROOT, hash_leaf
from tests.support.rfc6962_reference import mth
from tests.unit.audit.merkle import published_vectors as published
from tests.unit.audit.merkle.example_trees import EVERY_SIZE, LEAVES, some_examples

HASHES = [hash_leaf(leaf) for leaf in LEAVES]
LEVELS = range(10)
"""All levels that a tree of LEAVES has."""


def grown(size: int) -> CompactRange:
    tree = CompactRange()
    tree.extend(HASHES[:size])
    return tree


def perfect_nodes(size: int) -> dict[int, list[bytes]]:
    """All perfect subtrees of the first size leaves, by level."""
    return {
        level: [mth(LEAVES[end - (1 << level) : end]) for end in range(1 << level, size + 1, 1 << level)]
        for level in LEVELS
        if size >> level
    }


@pytest.mark.parametrize("size", range(len(published.ROOTS)))
def test_root_published_tree_is_the_published_root(size: int) -> None:
    tree = CompactRange()
    tree.extend([hash_leaf(leaf) for leaf in published.INPUTS[:size]])
    assert (tree.size, tree.compute_root()) == (size, published.ROOTS[size])


def test_extend_leaf_by_leaf_has_the_root_and_nodes_of_every_size() -> None:
    tree = CompactRange()
    for size in range(EVERY_SIZE + 1):
        assert (tree.size, tree.compute_root()) == (size, mth(LEAVES[:size]))
        nodes = perfect_nodes(size)
        assert tree.nodes == tuple(nodes[level][-1] for level in reversed(LEVELS) if size >> level & 1)
        tree.extend(HASHES[size : size + 1])


def test_extend_any_size_by_any_number_has_the_root_of_both() -> None:
    for size in range(35):
        for more in range(35):
            tree = grown(size)
            tree.extend(HASHES[size : size + more])
            assert (tree.size, tree.compute_root()) == (size + more, mth(LEAVES[: size + more])), (size, more)


@some_examples
@given(st.lists(st.integers(min_value=0, max_value=90), max_size=7), st.sets(st.sampled_from(LEVELS)))
def test_extend_in_portions_returns_each_kept_node_once(portions: list[int], kept: set[int]) -> None:
    tree = CompactRange()
    completed: dict[int, list[bytes]] = defaultdict(list)
    for portion in portions:
        for level, (index, nodes) in tree.extend(HASHES[tree.size : tree.size + portion], kept_levels=kept).items():
            assert (index, bool(nodes)) == (len(completed[level]), True)
            completed[level] += nodes
    assert tree.compute_root() == mth(LEAVES[: sum(portions)])
    assert completed == {level: nodes for level, nodes in perfect_nodes(sum(portions)).items() if level in kept}


def test_extend_without_kept_returns_nothing() -> None:
    assert CompactRange().extend(HASHES[:64]) == {}
    assert list(CompactRange().extend(HASHES[:64], kept_levels=(6, 7))) == [6]


def test_extend_does_not_change_its_argument() -> None:
    given_hashes = HASHES[:21]
    tree = grown(5)
    completed = tree.extend(given_hashes, kept_levels=[0, 1])
    tree.extend(HASHES[:9])
    assert completed[0][1] is not given_hashes
    assert given_hashes == HASHES[:21] == completed[0][1]
    assert len(completed[1][1]) == 11


@some_examples
@given(st.integers(min_value=0, max_value=300), st.integers(min_value=0, max_value=300))
def test_compact_range_from_nodes_grows_like_the_original(size: int, more: int) -> None:
    first = grown(size)
    second = CompactRange(first.size, first.nodes)
    kept = second.extend(HASHES[size : size + more], kept_levels=LEVELS)
    assert kept == first.extend(HASHES[size : size + more], kept_levels=LEVELS)
    assert (second.size, second.nodes, second.compute_root()) == (first.size, first.nodes, mth(LEAVES[: size + more]))


@pytest.mark.parametrize(
    ("accepted", "refused"),
    [
        pytest.param((5, HASHES[:2]), (5, HASHES[:1]), id="a node is missing"),
        pytest.param((5, HASHES[:2]), (5, HASHES[:3]), id="a node too many"),
        pytest.param((0, []), (0, HASHES[:1]), id="a node of nothing"),
        pytest.param((1, HASHES[:1]), (-1, HASHES[:1]), id="negative size"),
        pytest.param((1, HASHES[:1]), (1, [HASHES[0][:31]]), id="a node too short"),
        pytest.param((1, HASHES[:1]), (1, [HASHES[0] + b"\0"]), id="a node too long"),
    ],
)
def test_compact_range_of_invalid_nodes_is_refused(
    accepted: tuple[int, list[bytes]], refused: tuple[int, list[bytes]]
) -> None:
    assert CompactRange(*accepted).nodes == tuple(accepted[1])
    with pytest.raises(ValueError, match=r"A tree has one node|A hash has 32 bytes"):
        CompactRange(*refused)


@pytest.mark.parametrize("wrong", [b"", HASHES[0][:31], HASHES[0] + b"\0", HASHES[0].hex().encode()])
def test_extend_one_hash_of_wrong_length_changes_nothing(wrong: bytes) -> None:
    tree = grown(13)
    with pytest.raises(ValueError, match="32 bytes"):
        tree.extend([*HASHES[13:20], wrong, *HASHES[20:30]])
    assert (tree.size, tree.compute_root()) == (13, mth(LEAVES[:13]))
    tree.extend(HASHES[13:30])
    assert tree.compute_root() == mth(LEAVES[:30])


def test_perfect_subtrees_of_each_tree_are_its_nodes() -> None:
    for size in range(EVERY_SIZE + 1):
        nodes = [perfect_nodes(size)[level][index] for level, index in list_perfect_subtrees(0, size)]
        assert tuple(nodes) == grown(size).nodes


def test_perfect_subtrees_of_each_subtree_fold_to_its_root() -> None:
    for level in range(6):
        for start in range(0, 100, 1 << level):
            for end in range(start, start + (1 << level) + 1):
                subtrees = list_perfect_subtrees(start, end)
                roots = [mth(LEAVES[index << of : (index + 1) << of]) for of, index in subtrees]
                assert compute_root_of_subtrees(roots) == mth(LEAVES[start:end]), (start, end)
                assert len(subtrees) == (end - start).bit_count()


@pytest.mark.parametrize(
    ("accepted", "refused"),
    [
        pytest.param((4, 8), (3, 7), id="odd start"),
        pytest.param((4, 8), (4, 9), id="wider than the start allows"),
        pytest.param((8, 8), (8, 7), id="end before start"),
        pytest.param((0, 4), (-4, 0), id="negative start"),
        pytest.param((8, 15), (4, 11), id="no subtree, though both halves are"),
    ],
)
def test_perfect_subtrees_of_an_invalid_range_are_refused(accepted: tuple[int, int], refused: tuple[int, int]) -> None:
    list_perfect_subtrees(*accepted)
    with pytest.raises(ValueError, match="No tree has a subtree of these leaves"):
        list_perfect_subtrees(*refused)


def test_root_of_no_subtrees_is_the_empty_root() -> None:
    assert compute_root_of_subtrees([]) == EMPTY_ROOT == CompactRange().compute_root()
