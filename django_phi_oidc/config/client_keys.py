"""This client's own keys for `private_key_jwt`: the first signs, all are published. Spec: RFC 7517, 7518, 7638.

A key is unencrypted PEM: the text, or the path of its file. Its kid is its thumbprint, so no list has to name it.
"""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm, RSAPSSAlgorithm

from ..errors import DeclarationInvalid

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey

MIN_RSA_KEY_BITS = 2048
"""At least. Spec: RFC 7518 3.5."""
ALGS_BY_KTY = {"RSA": ("PS256", "RS256"), "EC": ("ES256",), "OKP": ("EdDSA",)}
"""What a key can sign with, the default first."""
_THUMBPRINT_MEMBERS = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}
_PS256, _RS256 = RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256), RSAAlgorithm(RSAAlgorithm.SHA256)
_ES256, _EDDSA = ECAlgorithm(ECAlgorithm.SHA256), OKPAlgorithm()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKey:
    """A private key and the name of its public half, which is all that tells two keys apart."""

    kid: str
    kty: str
    private_key: PrivateKey = field(repr=False, compare=False)

    def sign(self, alg: str, signing_input: bytes) -> bytes:
        """Return the signature of signing_input by alg, one of ALGS_OF_KTY[kty]. Spec: RFC 7518 3, 8037 3.1."""
        match alg, self.private_key:
            case "PS256", RSAPrivateKey() as rsa:
                return _PS256.sign(signing_input, rsa)
            case "RS256", RSAPrivateKey() as rsa:
                return _RS256.sign(signing_input, rsa)
            case "ES256", EllipticCurvePrivateKey() as ec:
                return _ES256.sign(signing_input, ec)
            case "EdDSA", Ed25519PrivateKey() as ed25519:
                return _EDDSA.sign(signing_input, ed25519)
        raise ValueError(f"A key of type {self.kty} does not sign with that algorithm.")

    def build_public_jwk(self, alg: str = "") -> dict[str, Any]:
        """Return the public half as an OP reads it, for alg alone if one is given. Spec: RFC 7517 4."""
        jwk = {**_get_public_members(self.private_key), "kid": self.kid, "use": "sig"}
        return {**jwk, "alg": alg} if alg else jwk


def parse_client_keys(option_path: str, sources: Any) -> tuple[ClientKey, ...]:
    """Return the keys of sources: PEM texts or paths of PEM files, one or a list of them.

    Raises: DeclarationInvalid, which names the option where, and nothing of a key.
    """
    listed = list(sources) if isinstance(sources, list | tuple) else [sources]
    if not all(isinstance(source, str | Path) for source in listed):
        raise DeclarationInvalid(f"{option_path} must be a PEM text, a pathlib.Path of one, or a list of these.")
    keys = tuple(_load_client_key(option_path, source) for source in listed)
    if len(set(keys)) != len(keys):
        raise DeclarationInvalid(f"{option_path} names one key twice.")
    return keys


def _load_client_key(option_path: str, source: str | Path) -> ClientKey:
    private_key = None
    try:
        pem = source.read_bytes() if isinstance(source, Path) else source.encode("ascii")
        private_key = load_pem_private_key(pem, password=None)
    except OSError:
        raise DeclarationInvalid(f"{option_path}: the file can't be read.") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        pass
    match private_key:
        case RSAPrivateKey() if private_key.key_size >= MIN_RSA_KEY_BITS:
            return _build_client_key(private_key)
        case EllipticCurvePrivateKey() if isinstance(private_key.curve, SECP256R1):
            return _build_client_key(private_key)
        case Ed25519PrivateKey():
            return _build_client_key(private_key)
    raise DeclarationInvalid(
        f"{option_path}: a key is unencrypted PEM of RSA with {MIN_RSA_KEY_BITS} bits, P-256 or Ed25519."
    )


def _build_client_key(private_key: PrivateKey) -> ClientKey:
    """The kid is the thumbprint. Spec: RFC 7638 3."""
    public = _get_public_members(private_key)
    digest = hashlib.sha256(json.dumps(public, sort_keys=True, separators=(",", ":")).encode("ascii")).digest()
    kid = base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
    return ClientKey(kid=kid, kty=public["kty"], private_key=private_key)


def _get_public_members(private_key: PrivateKey) -> dict[str, Any]:
    """Return what the thumbprint is made of, which is all that the public half is."""
    match private_key:
        case RSAPrivateKey():
            members = RSAAlgorithm.to_jwk(private_key.public_key(), as_dict=True)
        case EllipticCurvePrivateKey():
            members = ECAlgorithm.to_jwk(private_key.public_key(), as_dict=True)
        case _:
            members = OKPAlgorithm.to_jwk(private_key.public_key(), as_dict=True)
    return {name: value for name, value in members.items() if name in _THUMBPRINT_MEMBERS[members["kty"]]}
