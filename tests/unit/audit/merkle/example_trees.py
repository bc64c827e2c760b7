"""Example leaves, and node readers over them."""

from collections.abc import Callable, Sequence

from hypothesis import HealthCheck, settings

from tests.support.rfc6962_reference import Leaves, mth

LEAVES: Leaves = tuple(b"leaf %d" % number for number in range(700))
"""All different, so that positions cannot be confused."""
EVERY_SIZE = 130
"""All sizes, leaves and pairs of sizes up to this one are tested: above 2**7, for perfect and other trees."""

some_examples = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def reader(size: int) -> Callable[[Sequence[tuple[int, int]]], list[bytes]]:
    """Return a reader of the perfect subtrees of the first `size` leaves, and of no others."""

    def read(level: int, index: int) -> bytes:
        start, end = index << level, (index + 1) << level
        assert 0 <= start < end <= size, f"node ({level}, {index}) is not perfect in a tree of {size}"
        return mth(LEAVES[start:end])

    return lambda places: [read(*place) for place in places]


def flipped(hashes: list[bytes], bit: int) -> list[bytes]:
    """Return the hashes with one bit flipped, counted over all of them."""
    which, bit = divmod(bit, 256)
    damaged = bytearray(hashes[which])
    damaged[bit // 8] ^= 1 << bit % 8
    return [*hashes[:which], bytes(damaged), *hashes[which + 1 :]]
