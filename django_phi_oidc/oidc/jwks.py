"""The provider's keys: parsing, and selection for a token. Spec: RFC 7517, 7518 6, 8037 2; OIDC
Core 10.1.1.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurve,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

from ..config.rsa_moduli import is_allowed_modulus
from ..config.signature_algorithms import (
    ED25519_NAMES,
    SIGNATURE_ALGORITHMS,
    PublicKey,
    find_key_type,
    verify_signature,
)
from ..errors import Code, KeyNotFound, MetadataError
from .jose import decode_b64url, parse_json_object

_CURVES: Mapping[str, EllipticCurve] = {
    "P-256": SECP256R1(),
    "P-384": SECP384R1(),
    "P-521": SECP521R1(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationKey:
    """A public key for at least one supported algorithm. Contains no private member of its JWK."""

    kid: str | None
    alg: str | None
    use: str | None
    key_ops: tuple[str, ...] | None
    public_key: PublicKey = field(repr=False)

    def can_verify(self, alg: str) -> bool:
        """Return whether key type, alg, use and key_ops allow this key to verify alg.

        An `alg` of EdDSA permits Ed25519 and the reverse: for an Ed25519 key they are one
        algorithm.
        Spec: RFC 7517 4.1 to 4.4; RFC 7518 3.4 (one curve for each algorithm); RFC 9864 2.2.
        """
        algorithm = SIGNATURE_ALGORITHMS.get(alg)
        return (
            algorithm is not None
            and algorithm.key_type == find_key_type(self.public_key)
            and (self.alg in (None, alg) or {self.alg, alg} == ED25519_NAMES)
            and self.use in (None, "sig")
            and (self.key_ops is None or "verify" in self.key_ops)
        )

    def verify(self, alg: str, signing_input: bytes, signature: bytes) -> bool:
        """Return whether the signature is valid; False if the key cannot be used with alg.

        Spec: RFC 7518 3.3, 3.4, 3.5; RFC 8037 3.1; RFC 9864 2.2.
        """
        return self.can_verify(alg) and verify_signature(
            alg, self.public_key, signing_input=signing_input, signature=signature
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JSONWebKeySet:
    """The supported keys of a JWKS, in its order. A KeySet that never changes."""

    keys: tuple[VerificationKey, ...]

    def get_key(self, *, kid: str | None, alg: str) -> VerificationKey:
        """Return the key with that kid (any kid if the token has none) that can verify alg.

        Raises: KeyNotFound if none or several match, because keys are not tried in turn.
        Spec: OIDC Core 10.1.1, RFC 7517 4.5.
        """
        keys = []
        for key in self.keys:
            if kid in (None, key.kid) and key.can_verify(alg):
                keys.append(key)
        if len(keys) != 1:
            raise KeyNotFound
        return keys[0]

    def has_usable_key(self) -> bool:
        """Return whether any key can verify a signature."""
        return any(key.can_verify(alg) for key in self.keys for alg in SIGNATURE_ALGORITHMS)


class KeySet(Protocol):
    """Source of verification keys. An implementation may fetch them."""

    def get_key(self, *, kid: str | None, alg: str) -> VerificationKey:
        """Return the matching key. Raises: KeyNotFound, TransportError, MetadataError."""


def parse_jwks(body: bytes) -> JSONWebKeySet:
    """Return the keys that can verify signatures. Others (`oct`, unknown kty, weak, malformed) are
    ignored.

    Raises: MetadataError if body is not {"keys": [objects]}.
    Spec: RFC 7517 5 ("SHOULD ignore JWKs ... that use kty values that are not understood").
    """
    jwks: Mapping[str, Any] = {}
    with contextlib.suppress(ValueError):
        jwks = parse_json_object(body)
    members = jwks.get("keys")
    if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
        raise MetadataError(Code.METADATA_INVALID)
    return JSONWebKeySet(keys=tuple(key for key in map(parse_key, members) if key is not None))


def parse_key(jwk: Mapping[str, Any]) -> VerificationKey | None:
    """Return the public key; None for an unsupported one, which RFC 7517 5 says to ignore."""
    kty = jwk.get("kty")
    key_ops = jwk.get("key_ops")

    parse = None
    if isinstance(kty, str):
        parse = _KEY_PARSERS.get(kty)

    if parse is None or any(
        name in jwk and not isinstance(jwk[name], str) for name in ("kid", "alg", "use")
    ):
        return None
    if "key_ops" in jwk and not (
        isinstance(key_ops, list) and all(isinstance(op, str) for op in key_ops)
    ):
        return None
    try:
        public_key = parse(jwk)
    except ValueError:
        return None
    return VerificationKey(
        kid=jwk.get("kid"),
        alg=jwk.get("alg"),
        use=jwk.get("use"),
        key_ops=None if key_ops is None else tuple(key_ops),
        public_key=public_key,
    )


def _parse_rsa_key(jwk: Mapping[str, Any]) -> PublicKey:
    """Spec: RFC 7518 6.3.1."""
    n, e = (int.from_bytes(_decode_member(jwk, name), "big") for name in ("n", "e"))
    if not is_allowed_modulus(n):
        raise ValueError("The modulus is too short, too long, even or weak.")
    if e.bit_length() > 64:
        raise ValueError("The exponent is longer than OpenSSL accepts.")
    return RSAPublicNumbers(e, n).public_key()


def parse_ec_key(jwk: Mapping[str, Any]) -> EllipticCurvePublicKey:
    """Return the key, which is on P-256, P-384 or P-521. Raises: ValueError. Spec: RFC 7518
    6.2.1.
    """
    x = _decode_member(jwk, "x")
    y = _decode_member(jwk, "y")

    curve = None
    if isinstance(crv := jwk.get("crv"), str):
        curve = _CURVES.get(crv)

    if curve is None or not len(x) == len(y) == (curve.key_size + 7) // 8:
        raise ValueError("Not a point on a supported curve.")
    return EllipticCurvePublicNumbers(
        int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve
    ).public_key()


def _parse_okp_key(jwk: Mapping[str, Any]) -> PublicKey:
    """Only Ed25519. Spec: RFC 8037 2."""
    if jwk.get("crv") != "Ed25519":
        raise ValueError("Not an Ed25519 key.")
    return Ed25519PublicKey.from_public_bytes(_decode_member(jwk, "x"))


_KeyParser = Callable[[Mapping[str, Any]], PublicKey]
_KEY_PARSERS: Mapping[str, _KeyParser] = {
    "RSA": _parse_rsa_key,
    "EC": parse_ec_key,
    "OKP": _parse_okp_key,
}


def _decode_member(jwk: Mapping[str, Any], name: str) -> bytes:
    value = jwk.get(name)
    if not isinstance(value, str):
        raise ValueError("A member is missing or not a string.")  # noqa: TRY004 -- one error for all faults
    return decode_b64url(value)
