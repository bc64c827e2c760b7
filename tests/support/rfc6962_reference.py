"""MTH, PATH, PROOF and SUBPROOF as RFC 6962 2.1 defines them, over the leaves. Slow, independent of the package."""

from functools import lru_cache
from hashlib import sha256

Leaves = tuple[bytes, ...]


@lru_cache(maxsize=20_000)
def mth(d: Leaves) -> bytes:
    """MTH(D[n])."""
    n = len(d)
    if n == 0:
        return sha256(b"").digest()
    if n == 1:
        return sha256(b"\x00" + d[0]).digest()
    k = largest_power_of_two_below(n)
    return sha256(b"\x01" + mth(d[:k]) + mth(d[k:])).digest()


def path(m: int, d: Leaves) -> list[bytes]:
    """PATH(m, D[n])."""
    n = len(d)
    if n == 1:
        return []
    k = largest_power_of_two_below(n)
    if m < k:
        return [*path(m, d[:k]), mth(d[k:])]
    return [*path(m - k, d[k:]), mth(d[:k])]


def proof(m: int, d: Leaves) -> list[bytes]:
    """PROOF(m, D[n]), for 0 < m < n."""
    return subproof(m, d, b=True)


def subproof(m: int, d: Leaves, *, b: bool) -> list[bytes]:
    """SUBPROOF(m, D[n], b)."""
    n = len(d)
    if m == n:
        return [] if b else [mth(d)]
    k = largest_power_of_two_below(n)
    if m <= k:
        return [*subproof(m, d[:k], b=b), mth(d[k:])]
    return [*subproof(m - k, d[k:], b=False), mth(d[:k])]


def largest_power_of_two_below(n: int) -> int:
    """k with k < n <= 2k, for n > 1."""
    k = 1
    while 2 * k < n:
        k *= 2
    return k
