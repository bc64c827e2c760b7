"""Keys made at start, proper signatures by PyJWT, and the improper ones that refusal tests need."""

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
    """A private key that signs with one algorithm, and its name in the key set."""

    kid: str
    alg: str
    private_key: PrivateKey = field(repr=False)

    def public_jwk(self) -> dict[str, Any]:
        """Return the public half as a JWK. Spec: RFC 7517."""
        jwk: dict[str, Any] = _ALGORITHMS[self.alg].to_jwk(self.private_key.public_key(), as_dict=True)
        jwk.pop("key_ops", None)
        return {**jwk, "kid": self.kid, "alg": self.alg, "use": "sig"}

    def public_pem(self) -> bytes:
        """Return the public half as PEM: the HMAC secret of the HS256 confusion."""
        return self.private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def create_signing_key(alg: str, *, kid: str = "") -> SigningKey:
    """Return a new key for alg; a kid that is given may be one that another key bears already.

    Raises: ValueError when alg is none of the four.
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
    """Return a compact JWS of header and claims as they are, however wrong.

    The signature is key's, but for two lies that the header can tell: `alg: none` leaves it empty, and HS256 makes it
    an HMAC with the public key as secret, which a verifier falls for that lets the header choose. Spec: RFC 7515 7.1.
    """
    return sign_bytes(json.dumps(header).encode(), json.dumps(claims).encode(), key, alg=header.get("alg"))


def sign_bytes(header: bytes, payload: bytes, key: SigningKey, *, alg: object = None) -> str:
    """Return a compact JWS of bytes that need not be JSON (duplicate members, say), signed as alg says."""
    signing_input = f"{_encode_b64url(header)}.{_encode_b64url(payload)}"
    return f"{signing_input}.{_encode_b64url(_compute_signature(signing_input.encode(), key, alg))}"


def _compute_signature(signing_input: bytes, key: SigningKey, alg: object) -> bytes:
    if alg == "none":
        return b""
    if alg == "HS256":
        # PyJWT refuses a PEM as an HMAC secret; the digest is taken beneath that guard.
        return _ALGORITHMS["HS256"].sign(signing_input, key.public_pem())
    return _ALGORITHMS[key.alg].sign(signing_input, key.private_key)


def parse_unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of a compact JWS as they stand there; the signature may be anybody's.

    Raises: ValueError when it is none, or its payload no JSON object.
    """
    try:
        parts = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, RecursionError) as error:
        raise ValueError("No JWT.") from error
    return parts["header"], parts["payload"]


def corrupt_signature(token: str) -> str:
    """Return the token with one bit of its signature turned."""
    signing_input, _, signature = token.rpartition(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4)))
    raw[len(raw) // 2] ^= 1
    return f"{signing_input}.{_encode_b64url(bytes(raw))}"


def compute_half_hash(value: str, *, alg: str) -> str:
    """Return the left half of the hash of an ASCII value, as base64url. Ed25519 hashes with SHA-512.

    Spec: OIDC Core 3.1.3.6.
    """
    digest = hashlib.sha512(value.encode("ascii")) if alg == "EdDSA" else hashlib.sha256(value.encode("ascii"))
    return _encode_b64url(digest.digest()[: digest.digest_size // 2])


def _encode_b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
