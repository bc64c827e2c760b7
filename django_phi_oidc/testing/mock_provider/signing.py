"""Signing keys, valid signatures, and invalid signatures for tests."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.errors import JoseError
from joserfc.jws import extract_compact

from ..._internal.randomness import token_b64url
from ...config.signature_algorithms import (
    SIGNATURE_ALGORITHMS,
    KeyType,
    PrivateKey,
    PublicKey,
    create_signature,
    import_key,
    verify_signature,
)

DEMO_ALGS = ("PS256", "ES256", "EdDSA", "RS256")
"""The algorithms of the keys that a provider has by default."""
_CURVES: Mapping[str, ec.EllipticCurve] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A private key for one algorithm, and its kid."""

    kid: str
    alg: str
    private_key: PrivateKey = field(repr=False)

    def public_jwk(self) -> dict[str, Any]:
        """Return the public key as a JWK. Spec: RFC 7517."""
        members = import_key(self.private_key.public_key()).as_dict()
        return {**members, "kid": self.kid, "alg": self.alg, "use": "sig"}

    def public_pem(self) -> bytes:
        """Return the public key as PEM: the HMAC secret of an HS256 confusion attack."""
        return self.private_key.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )


def create_signing_key(alg: str, *, kid: str = "") -> SigningKey:
    """Return a new key for alg. The kid may be that of another key.

    Raises: ValueError if alg is not supported.
    """
    if alg not in SIGNATURE_ALGORITHMS:
        raise ValueError(f"The demo provider signs with {', '.join(SIGNATURE_ALGORITHMS)}.")
    private_key = _generate_private_key(SIGNATURE_ALGORITHMS[alg].key_type)
    return SigningKey(
        kid=kid or f"{alg.lower()}-{token_b64url(6)}", alg=alg, private_key=private_key
    )


def _generate_private_key(key_type: KeyType) -> PrivateKey:
    match key_type:
        case KeyType("EC", crv):
            return ec.generate_private_key(_CURVES[crv])
        case KeyType("OKP"):
            return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def create_signing_keys() -> dict[str, SigningKey]:
    """Return one new key for each algorithm of DEMO_ALGS."""
    signing_keys = {}
    for alg in DEMO_ALGS:
        signing_keys[alg] = create_signing_key(alg)
    return signing_keys


def sign_jwt(header: Mapping[str, Any], claims: Mapping[str, Any], key: SigningKey) -> str:
    """Return a compact JWS of header and claims, without validation.

    It is signed with key, except for two values of `alg` in the header: with `none` the signature
    is empty, with HS256 it is an HMAC with the public key as secret, which attacks verifiers that
    trust the header. Spec: RFC 7515 7.1.
    """
    return sign_bytes(
        json.dumps(header).encode(), json.dumps(claims).encode(), key, alg=header.get("alg")
    )


def sign_bytes(header: bytes, payload: bytes, key: SigningKey, *, alg: object = None) -> str:
    """Return a compact JWS of any bytes, for example JSON with duplicate members, signed as for
    `sign_jwt`.
    """
    signing_input = f"{_encode_b64url(header)}.{_encode_b64url(payload)}"
    return f"{signing_input}.{_encode_b64url(_compute_signature(signing_input.encode(), key, alg))}"


def _compute_signature(signing_input: bytes, key: SigningKey, alg: object) -> bytes:
    if alg == "none":
        return b""
    if alg == "HS256":
        return hmac.digest(key.public_pem(), signing_input, "sha256")
    return create_signature(key.alg, key.private_key, signing_input=signing_input)


def parse_unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of a compact JWS without verifying the signature.

    Raises: ValueError if it is not a JWS, or its payload is not a JSON object.
    """
    try:
        extracted = extract_compact(token.encode())
        header: Any = extracted.protected
        claims: Any = json.loads(extracted.payload)
    except (JoseError, ValueError, RecursionError) as error:
        raise ValueError("Not a JWT.") from error
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise ValueError("Not a JWT.")  # noqa: TRY004 -- one error for all faults
    return header, claims


def has_valid_signature(token: str, public_key: PublicKey, *, alg: str) -> bool:
    """Return whether the key signed this compact JWS by alg. NOT checked: the alg of its header."""
    signing_input, _, signature = token.rpartition(".")
    return verify_signature(
        alg, public_key, signing_input=signing_input.encode(), signature=_decode_b64url(signature)
    )


def corrupt_signature(token: str) -> str:
    """Return the token with one bit of its last part flipped: the signature, or the authentication
    tag of a JWE.
    """
    signing_input, _, signature = token.rpartition(".")
    raw = bytearray(_decode_b64url(signature))
    raw[len(raw) // 2] ^= 1
    return f"{signing_input}.{_encode_b64url(bytes(raw))}"


def compute_half_hash(value: str, *, alg: str) -> str:
    """Return the left half of the hash of an ASCII value as base64url.

    Spec: OIDC Core 3.1.3.6.
    """
    digest = hashlib.new(SIGNATURE_ALGORITHMS[alg].hash_name, value.encode("ascii"))
    return _encode_b64url(digest.digest()[: digest.digest_size // 2])


def _decode_b64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _encode_b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
