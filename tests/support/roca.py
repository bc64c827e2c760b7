"""RSA keys as the faulty generator of CVE-2017-15361 makes them: factorable by ROCA. Never use one."""

import secrets
from functools import reduce
from itertools import islice
from operator import mul

from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPrivateNumbers,
    RSAPublicNumbers,
    rsa_crt_dmp1,
    rsa_crt_dmq1,
    rsa_crt_iqmp,
)

_SMALL_PRIMES = [n for n in range(2, 702) if all(n % divisor for divisor in range(2, int(n**0.5) + 1))]
_PRIMORIAL = reduce(mul, islice(_SMALL_PRIMES, 126))
"""The constant of the generator for keys of 2048 bits."""


def create_roca_key() -> RSAPrivateKey:
    """Return a key of 2048 bits whose primes are k * primorial + (65537**a mod primorial)."""
    e, p, q = 65537, _find_prime(), _find_prime()
    d = pow(e, -1, (p - 1) * (q - 1))
    numbers = RSAPrivateNumbers(
        p, q, d, rsa_crt_dmp1(d, p), rsa_crt_dmq1(d, q), rsa_crt_iqmp(p, q), RSAPublicNumbers(e, p * q)
    )
    return numbers.private_key()


def _find_prime() -> int:
    while True:
        k = secrets.randbits(1024) // _PRIMORIAL
        prime = k * _PRIMORIAL + pow(65537, secrets.randbits(256), _PRIMORIAL)
        if prime >> 1022 == 3 and pow(2, prime - 1, prime) == 1:
            return prime
