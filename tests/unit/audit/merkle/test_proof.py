"""Proofs: built as the RFC defines them, and refused with each kind of damage."""

import base64
import math
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc.audit.errors import ProofInvalid
from django_phi_oidc.audit.merkle.checkpoint import parse_checkpoint
from django_phi_oidc.audit.merkle.proof import (
    build_consistency_proof,
    build_inclusion_proof,
    compute_root_at_size,
    verify_consistency,
    verify_inclusion,
)
from django_phi_oidc.audit.merkle.rfc6962 import EMPTY_ROOT, MAX_TREE_SIZE, hash_leaf
from tests.support.rfc6962_reference import mth, path, proof
from tests.unit.audit.merkle import published_vectors as published
from tests.unit.audit.merkle.example_trees import (
    EVERY_SIZE,
    LEAVES,
    flipped,
    reader,
    some_examples,
)

Arguments = dict[str, Any]
Damage = Callable[[Arguments], Arguments]
OTHER = sha256(b"another hash").digest()
ROOTS = [mth(LEAVES[:size]) for size in range(EVERY_SIZE + 1)]


def inclusion(leaf_index: int, tree_size: int) -> Arguments:
    """Return a proof over LEAVES as the RFC defines it."""
    return {
        "leaf_hash": hash_leaf(LEAVES[leaf_index]),
        "leaf_index": leaf_index,
        "tree_size": tree_size,
        "proof": path(leaf_index, LEAVES[:tree_size]),
        "root_hash": mth(LEAVES[:tree_size]),
    }


def consistency(old_size: int, new_size: int) -> Arguments:
    return {
        "old_size": old_size,
        "old_root": mth(LEAVES[:old_size]),
        "new_size": new_size,
        "new_root": mth(LEAVES[:new_size]),
        "proof": proof(old_size, LEAVES[:new_size]) if 0 < old_size < new_size else [],
    }


def published_inclusion(leaf_index: int, tree_size: int) -> Arguments:
    return {
        "leaf_hash": hash_leaf(published.INPUTS[leaf_index]),
        "leaf_index": leaf_index,
        "tree_size": tree_size,
        "proof": list(map(bytes.fromhex, published.INCLUSION[leaf_index, tree_size])),
        "root_hash": published.ROOTS[tree_size],
    }


def published_consistency(old_size: int, new_size: int) -> Arguments:
    return {
        "old_size": old_size,
        "old_root": published.ROOTS[old_size],
        "new_size": new_size,
        "new_root": published.ROOTS[new_size],
        "proof": list(map(bytes.fromhex, published.CONSISTENCY[old_size, new_size])),
    }


@cache
def perfect_root_of_equal_leaves(level: int) -> bytes:
    if level == 0:
        return OTHER
    below = perfect_root_of_equal_leaves(level - 1)
    return sha256(b"\x01" + below + below).digest()


def read_of_equal_leaves(places: Sequence[tuple[int, int]]) -> list[bytes]:
    """Read a log of any size whose leaves all have the hash OTHER."""
    return [perfect_root_of_equal_leaves(level) for level, _ in places]


def read_published(places: Sequence[tuple[int, int]]) -> list[bytes]:
    return [mth(published.INPUTS[index << level : (index + 1) << level]) for level, index in places]


def refused(verify: Callable[..., None], arguments: Arguments) -> None:
    with pytest.raises(ProofInvalid) as caught:
        verify(**arguments)
    assert caught.value.code == "proof_invalid"


# Building


def test_root_at_every_size_is_the_root() -> None:
    read = reader(EVERY_SIZE)
    assert [compute_root_at_size(size, read) for size in range(EVERY_SIZE + 1)] == ROOTS


def test_inclusion_proof_every_leaf_of_every_size_is_path() -> None:
    for size in range(1, EVERY_SIZE + 1):
        for index in range(size):
            arguments = inclusion(index, size)
            assert build_inclusion_proof(index, size, reader(size)) == arguments["proof"], (index, size)
            verify_inclusion(**arguments)


def test_consistency_proof_every_pair_of_sizes_is_proof() -> None:
    for new in range(EVERY_SIZE + 1):
        for old in range(new + 1):
            arguments = consistency(old, new)
            assert build_consistency_proof(old, new, reader(new)) == arguments["proof"], (old, new)
            verify_consistency(**arguments)


@some_examples
@given(st.integers(min_value=1, max_value=len(LEAVES)), st.data())
def test_proofs_of_larger_trees_are_those_of_the_rfc(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(min_value=0, max_value=size - 1))
    assert build_inclusion_proof(index, size, reader(size)) == path(index, LEAVES[:size])
    verify_inclusion(**inclusion(index, size))
    assert build_consistency_proof(index, size, reader(size)) == consistency(index, size)["proof"]
    verify_consistency(**consistency(index, size))


@pytest.mark.parametrize("place", published.INCLUSION)
def test_inclusion_proof_published_leaf_is_the_published_proof(place: tuple[int, int]) -> None:
    assert build_inclusion_proof(*place, read_published) == published_inclusion(*place)["proof"]


@pytest.mark.parametrize("sizes", published.CONSISTENCY)
def test_consistency_proof_published_sizes_is_the_published_proof(sizes: tuple[int, int]) -> None:
    assert build_consistency_proof(*sizes, read_published) == published_consistency(*sizes)["proof"]


@pytest.mark.parametrize("place", [(-1, 5), (5, 5), (6, 5), (0, 0)])
def test_inclusion_proof_leaf_outside_the_tree_is_refused(place: tuple[int, int]) -> None:
    assert build_inclusion_proof(4, 5, reader(5)) == path(4, LEAVES[:5])
    with pytest.raises(ValueError, match="not in the tree"):
        build_inclusion_proof(*place, reader(0))


@pytest.mark.parametrize("sizes", [(6, 5), (-1, 5), (1, 0), (-2, -1)])
def test_consistency_proof_sizes_out_of_order_are_refused(sizes: tuple[int, int]) -> None:
    assert build_consistency_proof(4, 5, reader(5)) == proof(4, LEAVES[:5])
    with pytest.raises(ValueError, match="larger than the new one"):
        build_consistency_proof(*sizes, reader(0))


@pytest.mark.parametrize("leaf_index", [0, 1, 2**19 - 1, 2**19, 2**20 - 1, 2**20, 2**20 + 63, 2**20 + 122])
def test_proofs_of_a_million_leaves_read_a_few_dozen_nodes_at_once(leaf_index: int) -> None:
    size = 2**20 + 123
    reads: list[Sequence[tuple[int, int]]] = []

    def count(places: Sequence[tuple[int, int]]) -> list[bytes]:
        reads.append(places)
        return [OTHER] * len(places)

    for build in (build_inclusion_proof, build_consistency_proof):
        reads.clear()
        build(leaf_index, size, count)
        assert [len(places) for places in reads] == [len(set(reads[0]))] if reads else leaf_index == 0
        assert sum(map(len, reads)) <= 2 * math.log2(size)


# Verifying inclusion


def test_verify_inclusion_proof_made_in_go_is_accepted() -> None:
    checkpoint = parse_checkpoint(published.LOG_NOTE)
    arguments = {
        "leaf_hash": hash_leaf(published.LOG_LEAF),
        "leaf_index": published.LOG_LEAF_INDEX,
        "tree_size": checkpoint.tree_size,
        "proof": list(map(base64.b64decode, published.LOG_PROOF)),
        "root_hash": checkpoint.root_hash,
    }
    verify_inclusion(**arguments)
    refused(verify_inclusion, {**arguments, "leaf_hash": hash_leaf(b"not it")})


def of_proof(change: Callable[[list[bytes]], list[bytes]]) -> Damage:
    return lambda arguments: {**arguments, "proof": change(arguments["proof"])}


def moved(name: str, change: Callable[[int], int]) -> Damage:
    return lambda arguments: {**arguments, name: change(arguments[name])}


def replaced(name: str, change: Callable[[bytes], bytes]) -> Damage:
    return lambda arguments: {**arguments, name: change(arguments[name])}


DAMAGED_PROOFS: dict[str, Damage] = {
    "truncated proof": of_proof(lambda proof: proof[:-1]),
    "proof without its first hash": of_proof(lambda proof: proof[1:]),
    "empty proof": of_proof(lambda _: []),
    "trailing garbage": of_proof(lambda proof: [*proof, b""]),
    "trailing hash": of_proof(lambda proof: [*proof, OTHER]),
    "preceding garbage": of_proof(lambda proof: [b"", *proof]),
    "preceding hash": of_proof(lambda proof: [OTHER, *proof]),
    "first hash twice": of_proof(lambda proof: [proof[0], *proof]),
    "inserted hash": of_proof(lambda proof: [proof[0], OTHER, *proof[1:]]),
    "swapped hashes": of_proof(lambda proof: [proof[1], proof[0], *proof[2:]]),
    "reversed proof": of_proof(lambda proof: proof[::-1]),
    "replaced hash": of_proof(lambda proof: [*proof[:-1], OTHER]),
    "short hash": of_proof(lambda proof: [*proof[:-1], proof[-1][:31]]),
    "long hash": of_proof(lambda proof: [*proof[:-1], proof[-1] + b"\0"]),
    "hashes joined to one": of_proof(lambda proof: [b"".join(proof)]),
    "border of two hashes moved": of_proof(lambda proof: [proof[0] + proof[1][:1], proof[1][1:], *proof[2:]]),
}
DAMAGED_INCLUSIONS: dict[str, Damage] = {
    **DAMAGED_PROOFS,
    "index before": moved("leaf_index", lambda index: index - 1),
    "index behind": moved("leaf_index", lambda index: index + 1),
    "index in the other half": moved("leaf_index", lambda index: index ^ 2),
    "negative index": moved("leaf_index", lambda index: ~index),
    "index is the size": lambda arguments: {**arguments, "leaf_index": arguments["tree_size"]},
    "index beyond the size": moved("leaf_index", lambda index: index + 8),
    "doubled size": moved("tree_size", lambda size: size * 2),
    "halved size": moved("tree_size", lambda size: size // 2),
    "no leaves": moved("tree_size", lambda _: 0),
    "negative size": moved("tree_size", lambda size: -size),
    "size beyond 63 bits": moved("tree_size", lambda _: 2**63),
    "size of ten thousand digits": moved("tree_size", lambda _: 10**10_000),
    "trailing root": lambda arguments: {**arguments, "proof": [*arguments["proof"], arguments["root_hash"]]},
    "preceding root": lambda arguments: {**arguments, "proof": [arguments["root_hash"], *arguments["proof"]]},
    "another leaf": replaced("leaf_hash", lambda _: hash_leaf(b"WrongLeaf")),
    "leaf not hashed": replaced("leaf_hash", lambda _: b"WrongLeaf"),
    "empty leaf hash": replaced("leaf_hash", lambda _: b""),
    "short leaf hash": replaced("leaf_hash", lambda leaf: leaf[:31]),
    "another root": replaced("root_hash", lambda _: OTHER),
    "root of the empty tree": replaced("root_hash", lambda _: EMPTY_ROOT),
    "empty root": replaced("root_hash", lambda _: b""),
    "short root": replaced("root_hash", lambda root: root[:31]),
    "long root": replaced("root_hash", lambda root: root + b"\0"),
    "root and leaf swapped": lambda arguments: {
        **arguments,
        "root_hash": arguments["leaf_hash"],
        "leaf_hash": arguments["root_hash"],
    },
}


@pytest.mark.parametrize("place", [(0, 8), (5, 8), (1, 5)])
@pytest.mark.parametrize("damage", DAMAGED_INCLUSIONS.values(), ids=DAMAGED_INCLUSIONS)
def test_verify_inclusion_damaged_published_proof_is_refused(damage: Damage, place: tuple[int, int]) -> None:
    accepted = published_inclusion(*place)
    verify_inclusion(**accepted)
    refused(verify_inclusion, damage(accepted))


def test_verify_inclusion_hash_of_wrong_length_has_its_own_message() -> None:
    with pytest.raises(ProofInvalid, match=r"A hash has 32 bytes\."):
        verify_inclusion(**{**inclusion(3, 7), "root_hash": b"\0" * 31})


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param({"leaf_hash": b"", "root_hash": b""}, id="no hashes"),
        pytest.param({"leaf_hash": OTHER}, id="another leaf"),
        pytest.param({"root_hash": OTHER}, id="another root"),
        pytest.param({"leaf_index": 1}, id="beyond the leaf"),
        pytest.param({"tree_size": 0}, id="the empty tree"),
        pytest.param({"tree_size": 2}, id="a larger tree"),
        pytest.param({"proof": [OTHER]}, id="a hash too many"),
    ],
)
def test_verify_inclusion_single_leaf_is_the_root(damage: Arguments) -> None:
    accepted = inclusion(0, 1)
    assert accepted["proof"] == []
    verify_inclusion(**accepted)
    refused(verify_inclusion, {**accepted, **damage})


def test_verify_inclusion_at_every_other_index_is_refused() -> None:
    for size in range(1, 34):
        for index in range(size):
            accepted = inclusion(index, size)
            verify_inclusion(**accepted)
            for other in range(-1, size + 1):
                if other != index:
                    refused(verify_inclusion, {**accepted, "leaf_index": other})


@pytest.mark.parametrize("index", [0, 1, MAX_TREE_SIZE // 2, MAX_TREE_SIZE - 2, MAX_TREE_SIZE - 1])
def test_verify_inclusion_in_the_largest_tree_is_accepted(index: int) -> None:
    accepted = {
        "leaf_hash": OTHER,
        "leaf_index": index,
        "tree_size": MAX_TREE_SIZE,
        "proof": build_inclusion_proof(index, MAX_TREE_SIZE, read_of_equal_leaves),
        "root_hash": compute_root_at_size(MAX_TREE_SIZE, read_of_equal_leaves),
    }
    verify_inclusion(**accepted)
    refused(verify_inclusion, {**accepted, "tree_size": MAX_TREE_SIZE + 1})
    refused(verify_inclusion, {**accepted, "leaf_index": MAX_TREE_SIZE})


@some_examples
@given(st.integers(min_value=1, max_value=len(LEAVES)), st.data())
def test_verify_inclusion_one_flipped_bit_is_refused(size: int, data: st.DataObject) -> None:
    accepted = inclusion(data.draw(st.integers(min_value=0, max_value=size - 1)), size)
    verify_inclusion(**accepted)
    hashes = [accepted["leaf_hash"], accepted["root_hash"], *accepted["proof"]]
    leaf, root, *changed = flipped(hashes, data.draw(st.integers(min_value=0, max_value=256 * len(hashes) - 1)))
    refused(verify_inclusion, {**accepted, "leaf_hash": leaf, "root_hash": root, "proof": changed})


# Verifying consistency

DAMAGED_CONSISTENCIES: dict[str, Damage] = {
    **DAMAGED_PROOFS,
    "old size less one": moved("old_size", lambda size: size - 1),
    "old size and one": moved("old_size", lambda size: size + 1),
    "old size of the other half": moved("old_size", lambda size: size ^ 2),
    "negative old size": moved("old_size", lambda size: -size),
    "old size is the new one": lambda arguments: {**arguments, "old_size": arguments["new_size"]},
    "doubled new size": moved("new_size", lambda size: size * 2),
    "halved new size": moved("new_size", lambda size: size // 2),
    "sizes swapped": lambda arguments: {
        **arguments,
        "old_size": arguments["new_size"],
        "new_size": arguments["old_size"],
    },
    "new size beyond 63 bits": moved("new_size", lambda _: 2**63),
    "swapped roots": lambda arguments: {
        **arguments,
        "old_root": arguments["new_root"],
        "new_root": arguments["old_root"],
    },
    "another old root": replaced("old_root", lambda _: OTHER),
    "old root not hashed": replaced("old_root", lambda _: b"WrongRoot"),
    "empty old root": replaced("old_root", lambda _: b""),
    "long old root": replaced("old_root", lambda root: root + b"\0"),
    "another new root": replaced("new_root", lambda _: OTHER),
    "new root not hashed": replaced("new_root", lambda _: b"WrongRoot"),
    "empty new root": replaced("new_root", lambda _: b""),
    "short new root": replaced("new_root", lambda root: root[:31]),
    "trailing old root": lambda arguments: {**arguments, "proof": [*arguments["proof"], arguments["old_root"]]},
    "trailing new root": lambda arguments: {**arguments, "proof": [*arguments["proof"], arguments["new_root"]]},
    "preceding old root": lambda arguments: {**arguments, "proof": [arguments["old_root"], *arguments["proof"]]},
    "preceding new root": lambda arguments: {**arguments, "proof": [arguments["new_root"], *arguments["proof"]]},
}


@pytest.mark.parametrize("sizes", published.CONSISTENCY)
@pytest.mark.parametrize("damage", DAMAGED_CONSISTENCIES.values(), ids=DAMAGED_CONSISTENCIES)
def test_verify_consistency_damaged_published_proof_is_refused(damage: Damage, sizes: tuple[int, int]) -> None:
    accepted = published_consistency(*sizes)
    verify_consistency(**accepted)
    refused(verify_consistency, damage(accepted))


@pytest.mark.parametrize(
    ("sizes", "damage"),
    [
        pytest.param((0, 0), {"new_root": OTHER}, id="two roots of the empty tree"),
        pytest.param((0, 0), {"old_root": OTHER, "new_root": OTHER}, id="the empty tree with another root"),
        pytest.param((0, 0), {"proof": [EMPTY_ROOT]}, id="nothing to nothing, with a proof"),
        pytest.param((0, 1), {"old_root": OTHER}, id="the empty tree with another root, at first"),
        pytest.param((0, 1), {"old_root": ROOTS[1]}, id="the empty tree with the new root"),
        pytest.param((0, 1), {"proof": [EMPTY_ROOT]}, id="from nothing, with a proof"),
        pytest.param((0, 5), {"new_root": b""}, id="from nothing, to no hash"),
        pytest.param((1, 1), {"old_root": OTHER}, id="two roots of one leaf"),
        pytest.param((1, 1), {"proof": [ROOTS[1]]}, id="one leaf, with a proof"),
        pytest.param((5, 5), {"new_root": OTHER}, id="two roots of one size"),
        pytest.param((5, 5), {"proof": [ROOTS[5]]}, id="one size, with a proof"),
        pytest.param((1, 2), {"proof": []}, id="one leaf to two, without a proof"),
        pytest.param((1, 2), {"new_size": 0}, id="a leaf to nothing"),
        pytest.param((1, 2), {"old_size": 3}, id="back to the past"),
    ],
)
def test_verify_consistency_of_equal_or_empty_trees_is_strict(sizes: tuple[int, int], damage: Arguments) -> None:
    accepted = consistency(*sizes)
    verify_consistency(**accepted)
    refused(verify_consistency, {**accepted, **damage})


@pytest.mark.parametrize("old_size", [1, 2**62, 2**62 + 1, MAX_TREE_SIZE - 1])
def test_verify_consistency_to_the_largest_tree_is_accepted(old_size: int) -> None:
    accepted = {
        "old_size": old_size,
        "old_root": compute_root_at_size(old_size, read_of_equal_leaves),
        "new_size": MAX_TREE_SIZE,
        "new_root": compute_root_at_size(MAX_TREE_SIZE, read_of_equal_leaves),
        "proof": build_consistency_proof(old_size, MAX_TREE_SIZE, read_of_equal_leaves),
    }
    verify_consistency(**accepted)
    refused(verify_consistency, {**accepted, "new_size": MAX_TREE_SIZE + 1})
    refused(verify_consistency, {**accepted, "old_size": old_size + 1})


def test_verify_consistency_with_a_changed_leaf_is_refused() -> None:
    for new in range(2, 34):
        for old in range(1, new):
            changed = (*LEAVES[: old - 1], b"changed", *LEAVES[old:new])
            honest, forged = consistency(old, new), proof(old, changed)
            verify_consistency(**honest)
            refused(verify_consistency, {**honest, "new_root": mth(changed), "proof": forged})


@some_examples
@given(st.integers(min_value=1, max_value=len(LEAVES)), st.data())
def test_verify_consistency_one_flipped_bit_is_refused(new: int, data: st.DataObject) -> None:
    accepted = consistency(data.draw(st.integers(min_value=1, max_value=new)), new)
    verify_consistency(**accepted)
    hashes = [accepted["old_root"], accepted["new_root"], *accepted["proof"]]
    old_root, new_root, *changed = flipped(hashes, data.draw(st.integers(min_value=0, max_value=256 * len(hashes) - 1)))
    refused(verify_consistency, {**accepted, "old_root": old_root, "new_root": new_root, "proof": changed})
