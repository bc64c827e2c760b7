"""The RSA moduli that are accepted for signatures and encryption. Spec: RFC 7518 3.3, 3.5, 4.3."""

from itertools import accumulate, repeat

ALLOWED_RSA_KEY_BITS = range(2048, 16384 + 1)
"""The minimum is that of RFC 7518, the maximum that of OpenSSL."""
_ROCA_GENERATOR = 65537
_ROCA_PRIMES = (
    *(3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83),
    *(89, 97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167),
)
"""The primes that divide the constant of the faulty generator for every key length."""


def is_allowed_modulus(modulus: int) -> bool:
    """Return whether the modulus is odd, of an allowed length, and without the fingerprint of ROCA.

    NOT checked: whether it is the product of two primes.
    """
    return (
        modulus.bit_length() in ALLOWED_RSA_KEY_BITS
        and modulus % 2 == 1
        and not has_roca_fingerprint(modulus)
    )


def has_roca_fingerprint(modulus: int) -> bool:
    """Return whether the modulus is from the faulty generator of CVE-2017-15361, whose keys can be
    factored.

    Its primes are powers of 65537 modulo many small primes, and so is their product. A sound
    modulus has this property by chance about once in 2**27.
    """
    return all(modulus % prime in residues for prime, residues in _ROCA_RESIDUES.items())


def _list_powers(prime: int) -> frozenset[int]:
    powers = accumulate(
        repeat(_ROCA_GENERATOR, prime), lambda power, factor: power * factor % prime, initial=1
    )
    return frozenset(powers)


_ROCA_RESIDUES = {prime: _list_powers(prime) for prime in _ROCA_PRIMES}
