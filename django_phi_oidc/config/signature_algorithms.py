"""The signature algorithms of tokens and client assertions, computed by joserfc.

There is no `none` and no HMAC: a name that is not in SIGNATURE_ALGORITHMS signs and verifies
nothing.
Spec: RFC 7518 3, 8037 3.1, 9864 2.2.
"""

from collections.abc import Mapping
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from joserfc.jwa import JWSAlgModel
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey


class KeyType(NamedTuple):
    """The `kty` of a JWK, and its `crv`, which is empty for RSA."""

    kty: str
    crv: str = ""


class SignatureAlgorithm(NamedTuple):
    """The only key type of an algorithm, and the hash of its `at_hash`."""

    key_type: KeyType
    hash_name: str


RSA = KeyType("RSA")
ED25519 = KeyType("OKP", "Ed25519")
P256 = KeyType("EC", "P-256")
P384 = KeyType("EC", "P-384")
P521 = KeyType("EC", "P-521")

SIGNATURE_ALGORITHMS: Mapping[str, SignatureAlgorithm] = {
    "PS256": SignatureAlgorithm(RSA, "sha256"),
    "PS384": SignatureAlgorithm(RSA, "sha384"),
    "PS512": SignatureAlgorithm(RSA, "sha512"),
    "ES256": SignatureAlgorithm(P256, "sha256"),
    "ES384": SignatureAlgorithm(P384, "sha384"),
    "ES512": SignatureAlgorithm(P521, "sha512"),
    # OpenID Connect defines no hash for these two. Providers use that of Ed25519 itself (RFC 8032
    # 5.1).
    "EdDSA": SignatureAlgorithm(ED25519, "sha512"),
    "Ed25519": SignatureAlgorithm(ED25519, "sha512"),
    "RS256": SignatureAlgorithm(RSA, "sha256"),
    "RS384": SignatureAlgorithm(RSA, "sha384"),
    "RS512": SignatureAlgorithm(RSA, "sha512"),
}
"""Of the algorithms of one key type, the first is the default of client assertions."""
DEFAULT_SIGNING_ALGS = ("PS256", "ES256", "EdDSA", "Ed25519", "RS256")
ED25519_NAMES = frozenset({"EdDSA", "Ed25519"})
"""Two names of one algorithm: EdDSA is only accepted with Ed25519 keys, where RFC 9864 2.2 renames
it.
"""
_CURVE_NAMES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


def find_key_type(key: object) -> KeyType | None:
    """Return the type of a public or private key; None if no algorithm uses it, for example on
    another curve.
    """
    match key:
        case RSAPublicKey() | RSAPrivateKey():
            return RSA
        case EllipticCurvePublicKey() | EllipticCurvePrivateKey() if key.curve.name in _CURVE_NAMES:
            return KeyType("EC", _CURVE_NAMES[key.curve.name])
        case Ed25519PublicKey() | Ed25519PrivateKey():
            return ED25519
    return None


def list_signing_algs(key_type: KeyType) -> tuple[str, ...]:
    """Return the algorithms of a key type, the default first."""
    signing_algs = []
    for name, algorithm in SIGNATURE_ALGORITHMS.items():
        if algorithm.key_type == key_type:
            signing_algs.append(name)
    return tuple(signing_algs)


def verify_signature(
    alg: str, public_key: PublicKey, *, signing_input: bytes, signature: bytes
) -> bool:
    """Return whether the signature is valid; False if the key is not of the algorithm's type."""
    if not _is_key_for(public_key, alg):
        return False
    return _get_implementation(alg).verify(signing_input, signature, import_key(public_key))


def create_signature(alg: str, private_key: PrivateKey, *, signing_input: bytes) -> bytes:
    """Return the signature. Raises: ValueError if the key is not of the algorithm's type."""
    if not _is_key_for(private_key, alg):
        raise ValueError("The key does not sign with that algorithm.")
    return _get_implementation(alg).sign(signing_input, import_key(private_key))


def import_key(key: PublicKey | PrivateKey) -> RSAKey | ECKey | OKPKey:
    """Return the key as joserfc has it."""
    match key:
        case RSAPublicKey() | RSAPrivateKey():
            return RSAKey.import_key(key)
        case EllipticCurvePublicKey() | EllipticCurvePrivateKey():
            return ECKey.import_key(key)
    return OKPKey.import_key(key)


def _is_key_for(key: PublicKey | PrivateKey, alg: str) -> bool:
    return alg in SIGNATURE_ALGORITHMS and SIGNATURE_ALGORITHMS[alg].key_type == find_key_type(key)


def _get_implementation(alg: str) -> JWSAlgModel:
    """Return EdDSA as Ed25519, its name of RFC 9864: joserfc's EdDSA accepts Ed448 keys too, and
    warns.
    """
    return JWSRegistry.algorithms["Ed25519" if alg in ED25519_NAMES else alg]
