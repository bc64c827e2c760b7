"""A certificate authority for tests, from the attack kit, and client certificates."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID

from django_phi_oidc._internal import clock
from django_phi_oidc.testing.attack.throwaway_ca import (
    CertificateAuthority,
    create_certificate_authority,
    encode_private_key,
)

__all__ = [
    "CertificateAuthority",
    "create_certificate_authority",
    "create_certificate_pem",
    "write_client_certificate",
]


def write_client_certificate(path: Path, *, key: Any = None, **options: Any) -> Path:
    """Write a PEM file with a client certificate and its key, and return its path. options: see below."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    key_pem = encode_private_key(key)
    path.write_text(create_certificate_pem(key_pem, **options) + key_pem)
    return path


def create_certificate_pem(
    key_pem: str,
    *,
    authority: CertificateAuthority | None = None,
    subject: str = "portal.example",
    uris: Sequence[str] = (),
    expires_at: datetime | None = None,
) -> str:
    """Return a certificate of that private key, self-signed without an authority. uris: its alternative names."""
    key: Any = load_pem_private_key(key_pem.encode(), password=None)
    issuer, issuer_key = (authority.certificate.subject, authority.key) if authority else (None, key)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)] if subject else [])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer or name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=2))
        .not_valid_after(expires_at or max(datetime.now(UTC), clock.now()) + timedelta(days=365))
    )
    if uris:
        names = x509.SubjectAlternativeName(list(map(x509.UniformResourceIdentifier, uris)))
        builder = builder.add_extension(names, critical=False)
    algorithm = None if isinstance(issuer_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    certificate = builder.sign(issuer_key, algorithm)
    return certificate.public_bytes(Encoding.PEM).decode()
