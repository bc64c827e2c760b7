"""Leaves, and whoever reads the nodes above them, for the tests of this folder."""

from collections.abc import Callable

from hypothesis import HealthCheck, settings

from tests.support.rfc6962_reference import Leaves, mth

LEAVES: Leaves = tuple(b"leaf %d" % number for number in range(700))
"""No two alike, so that no place can be taken for another."""
EVERY_SIZE = 130
"""Up to this size, each size, leaf and pair of sizes is tried: past 2**7, so that whole and ragged trees are there."""

some_examples = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def reader(size: int) -> Callable[[int, int], bytes]:
    """Return what reads the perfect subtrees of the first size leaves, and knows no other."""

    def read(level: int, index: int) -> bytes:
        start, end = index << level, (index + 1) << level
        assert 0 <= start < end <= size, f"node ({level}, {index}) is not whole in a tree of {size}"
        return mth(LEAVES[start:end])

    return read


def flipped(hashes: list[bytes], bit: int) -> list[bytes]:
    """Return hashes with one bit changed, counted over all of them."""
    which, bit = divmod(bit, 256)
    damaged = bytearray(hashes[which])
    damaged[bit // 8] ^= 1 << bit % 8
    return [*hashes[:which], bytes(damaged), *hashes[which + 1 :]]
