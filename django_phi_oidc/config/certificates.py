"""X.509 certificates of the client: of its TLS connections, and of keys that sign its JWTs. Spec:
RFC 5280, 8705.
"""

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import (
    load_der_x509_certificate,
    load_pem_x509_certificates,
)

from ..errors import DeclarationInvalid
from .rsa_moduli import ALLOWED_RSA_KEY_BITS, is_allowed_modulus
from .signature_algorithms import PublicKey, find_key_type, import_key

CERTIFICATE_EXPIRY_WARNING = timedelta(days=30)
"""How long before a certificate, or a signed statement, expires the checks warn."""


def read_certificate_chain(path: Path) -> tuple[bytes, ...]:
    """Return the certificates of a PEM file in DER, in the order of the file; a private key in it
    is skipped.

    NOT checked: validity and signatures. Raises: DeclarationInvalid, also if the key of the first
    one is too weak.
    """
    try:
        certificates = load_pem_x509_certificates(path.read_bytes())
        key = certificates[0].public_key()
    except (OSError, ValueError, UnsupportedAlgorithm):
        raise DeclarationInvalid(
            "client_certificate is no readable PEM file with a certificate."
        ) from None
    is_weak = isinstance(key, RSAPublicKey) and not is_allowed_modulus(key.public_numbers().n)
    if find_key_type(key) is None or is_weak:
        bits = ALLOWED_RSA_KEY_BITS[0]
        raise DeclarationInvalid(
            f"client_certificate must have an RSA key of {bits} bits or more, EC or Ed25519."
        )
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in certificates)


def get_expiry(der: bytes) -> datetime:
    """Return the end of the validity (RFC 5280 4.1.2.5)."""
    return load_der_x509_certificate(der).not_valid_after_utc


def build_certificate_jwk(chain: Sequence[bytes]) -> dict[str, Any]:
    """Return the public key of the first certificate as a JWK with `x5c`. Spec: RFC 7517 4.7, RFC
    8705 2.2.2.
    """
    key = import_key(cast(PublicKey, load_der_x509_certificate(chain[0]).public_key()))
    return {
        **key.as_dict(),
        "kid": key.thumbprint(),
        "use": "sig",
        "x5c": encode_certificate_chain(chain),
    }


def encode_certificate_chain(chain: Sequence[bytes]) -> list[str]:
    """Return `x5c`: each certificate in base64, with padding and not base64url. Spec: RFC 7515
    4.1.6, RFC 7517 4.7.
    """
    return [base64.b64encode(certificate).decode("ascii") for certificate in chain]


def compute_certificate_thumbprint(der: bytes) -> str:
    """Return `x5t#S256`: base64url of the SHA-256 digest of the DER encoding. Spec: RFC 7515 4.1.8,
    RFC 8705 3.1.
    """
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode("ascii")
