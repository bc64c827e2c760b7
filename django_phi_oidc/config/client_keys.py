"""The client's own keys for `private_key_jwt`: the first signs, all are published. Spec: RFC 7517, 7518, 7638.

A key is unencrypted PEM, as text or as a file. Its kid is its thumbprint, so the setting does not name it.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm, RSAPSSAlgorithm

from ._parsing import fail

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey

MIN_RSA_KEY_BITS = 2048
"""Spec: RFC 7518 3.5."""
ALGS_BY_KTY = {"RSA": ("PS256", "RS256"), "EC": ("ES256",), "OKP": ("EdDSA",)}
"""The signature algorithms of each key type, the default first."""
_THUMBPRINT_MEMBERS = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}
_ALGORITHMS: Mapping[str, Any] = {
    "PS256": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256),
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
    "ES256": ECAlgorithm(ECAlgorithm.SHA256),
    "EdDSA": OKPAlgorithm(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKey:
    """A private key. Keys are equal if their kid is."""

    kid: str
    kty: str
    private_key: PrivateKey = field(repr=False, compare=False)

    def sign(self, alg: str, signing_input: bytes) -> bytes:
        """Return the signature of signing_input by alg, one of ALGS_BY_KTY[kty]. Spec: RFC 7518 3, 8037 3.1."""
        if alg not in ALGS_BY_KTY[self.kty]:
            raise ValueError(f"A key of type {self.kty} does not sign with that algorithm.")
        return bytes(_ALGORITHMS[alg].sign(signing_input, self.private_key))

    def build_public_jwk(self, alg: str = "") -> dict[str, Any]:
        """Return the public key, for use with alg only if it is given. Spec: RFC 7517 4."""
        jwk = {**_get_public_members(self.private_key), "kid": self.kid, "use": "sig"}
        return {**jwk, "alg": alg} if alg else jwk


def parse_client_keys(path: str, value: Any) -> tuple[ClientKey, ...]:
    """Return the keys of value: a PEM text or the Path of a PEM file, or a list of these.

    Raises: DeclarationInvalid, without the content of a key.
    """
    sources = list(value) if isinstance(value, list | tuple) else [value]
    if not all(isinstance(source, str | Path) for source in sources):
        fail(path, "must be a PEM text, a pathlib.Path of one, or a list of these")
    keys = tuple(_load_client_key(path, source) for source in sources)
    return keys if len(set(keys)) == len(keys) else fail(path, "names one key twice")


def _load_client_key(path: str, source: str | Path) -> ClientKey:
    private_key = None
    try:
        pem = source.read_bytes() if isinstance(source, Path) else source.encode("ascii")
        private_key = load_pem_private_key(pem, password=None)
    except OSError:
        fail(path, "names a file that can't be read")
    except (ValueError, TypeError, UnsupportedAlgorithm):
        pass
    if not _is_allowed(private_key):
        fail(path, f"must be unencrypted PEM of RSA with at least {MIN_RSA_KEY_BITS} bits, P-256 or Ed25519")
    public = _get_public_members(private_key)
    digest = hashlib.sha256(json.dumps(public, sort_keys=True, separators=(",", ":")).encode("ascii")).digest()
    kid = base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
    return ClientKey(kid=kid, kty=public["kty"], private_key=private_key)


def _is_allowed(key: Any) -> TypeGuard[PrivateKey]:
    if isinstance(key, RSAPrivateKey):
        return key.key_size >= MIN_RSA_KEY_BITS
    is_p256 = isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1)
    return is_p256 or isinstance(key, Ed25519PrivateKey)


def _get_public_members(private_key: PrivateKey) -> dict[str, Any]:
    """Return the members of the public JWK, which are those of the thumbprint. Spec: RFC 7638 3."""
    algorithm: Any = OKPAlgorithm
    if not isinstance(private_key, Ed25519PrivateKey):
        algorithm = RSAAlgorithm if isinstance(private_key, RSAPrivateKey) else ECAlgorithm
    members = algorithm.to_jwk(private_key.public_key(), as_dict=True)
    return {name: value for name, value in members.items() if name in _THUMBPRINT_MEMBERS[members["kty"]]}
