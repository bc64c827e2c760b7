"""Signing keys, valid signatures by PyJWT, and invalid signatures for tests."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms

from ..._internal.randomness import token_b64url
from ...config.providers import SIGNING_ALGS

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_ALGORITHMS = get_default_algorithms()


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A private key for one algorithm, and its kid."""

    kid: str
    alg: str
    private_key: PrivateKey = field(repr=False)

    def public_jwk(self) -> dict[str, Any]:
        """Return the public key as a JWK. Spec: RFC 7517."""
        jwk: dict[str, Any] = _ALGORITHMS[self.alg].to_jwk(self.private_key.public_key(), as_dict=True)
        jwk.pop("key_ops", None)
        return {**jwk, "kid": self.kid, "alg": self.alg, "use": "sig"}

    def public_pem(self) -> bytes:
        """Return the public key as PEM: the HMAC secret of an HS256 confusion attack."""
        return self.private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def create_signing_key(alg: str, *, kid: str = "") -> SigningKey:
    """Return a new key for alg. The kid may be that of another key.

    Raises: ValueError if alg is not supported.
    """
    if alg not in SIGNING_ALGS:
        raise ValueError(f"The demo provider signs with {', '.join(SIGNING_ALGS)}.")
    private_key: PrivateKey
    if alg == "ES256":
        private_key = ec.generate_private_key(ec.SECP256R1())
    elif alg == "EdDSA":
        private_key = ed25519.Ed25519PrivateKey.generate()
    else:
        private_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return SigningKey(kid=kid or f"{alg.lower()}-{token_b64url(6)}", alg=alg, private_key=private_key)


def create_signing_keys() -> dict[str, SigningKey]:
    """Return one new key for each algorithm."""
    return {alg: create_signing_key(alg) for alg in SIGNING_ALGS}


def sign_jwt(header: Mapping[str, Any], claims: Mapping[str, Any], key: SigningKey) -> str:
    """Return a compact JWS of header and claims, without validation.

    It is signed with key, except for two values of `alg` in the header: with `none` the signature is empty, with HS256
    it is an HMAC with the public key as secret, which attacks verifiers that trust the header. Spec: RFC 7515 7.1.
    """
    return sign_bytes(json.dumps(header).encode(), json.dumps(claims).encode(), key, alg=header.get("alg"))


def sign_bytes(header: bytes, payload: bytes, key: SigningKey, *, alg: object = None) -> str:
    """Return a compact JWS of any bytes, for example JSON with duplicate members, signed as for `sign_jwt`."""
    signing_input = f"{_encode_b64url(header)}.{_encode_b64url(payload)}"
    return f"{signing_input}.{_encode_b64url(_compute_signature(signing_input.encode(), key, alg))}"


def _compute_signature(signing_input: bytes, key: SigningKey, alg: object) -> bytes:
    if alg == "none":
        return b""
    if alg == "HS256":
        # PyJWT rejects a PEM as HMAC secret, so bypass its check.
        return _ALGORITHMS["HS256"].sign(signing_input, key.public_pem())
    return _ALGORITHMS[key.alg].sign(signing_input, key.private_key)


def parse_unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of a compact JWS without verifying the signature.

    Raises: ValueError if it is not a JWS, or its payload is not a JSON object.
    """
    try:
        parts = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, RecursionError) as error:
        raise ValueError("Not a JWT.") from error
    return parts["header"], parts["payload"]


def corrupt_signature(token: str) -> str:
    """Return the token with one bit of its signature flipped."""
    signing_input, _, signature = token.rpartition(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4)))
    raw[len(raw) // 2] ^= 1
    return f"{signing_input}.{_encode_b64url(bytes(raw))}"


def compute_half_hash(value: str, *, alg: str) -> str:
    """Return the left half of the hash of an ASCII value as base64url; the hash for Ed25519 is SHA-512.

    Spec: OIDC Core 3.1.3.6.
    """
    digest = hashlib.sha512(value.encode("ascii")) if alg == "EdDSA" else hashlib.sha256(value.encode("ascii"))
    return _encode_b64url(digest.digest()[: digest.digest_size // 2])


def _encode_b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
