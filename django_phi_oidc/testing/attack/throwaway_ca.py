"""A temporary certificate authority, its certificates as files, and temporary client keys."""

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..._internal import clock


@dataclass(frozen=True)
class CertificateAuthority:
    """A CA. `certificate_path` is its own certificate, for `ca_bundle`."""

    directory: Path
    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def certificate_path(self) -> str:
        return str(self.directory / f"{self.name}.pem")

    def create_server_context(self, *hosts: str, expired: bool = False) -> ssl.SSLContext:
        """Return a server context with a certificate for these names and addresses."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.create_server_certificate(*hosts, expired=expired))
        return context

    def create_server_certificate(
        self, *hosts: str, expired: bool = False, valid_days: int = 1
    ) -> Path:
        """Return the path of a PEM file with a server certificate for these names and addresses,
        and its key.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        if expired:
            not_after = datetime.now(UTC) - timedelta(hours=1)
        else:
            not_after = _get_latest_time() + timedelta(days=valid_days)

        certificate = (
            _create_certificate_builder(hosts[0], self.name, key, not_after)
            .add_extension(
                x509.SubjectAlternativeName([_parse_general_name(host) for host in hosts]),
                critical=False,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
            .sign(self.key, hashes.SHA256())
        )
        path = (
            self.directory
            / f"{self.name}-{hosts[0]}{'-expired' if expired else f'-{valid_days}'}.pem"
        )
        path.write_bytes(certificate.public_bytes(Encoding.PEM) + encode_private_key(key).encode())
        return path


def create_certificate_authority(directory: Path, name: str) -> CertificateAuthority:
    """Return a new CA with its files in directory."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _create_certificate_builder(name, name, key, _get_latest_time() + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_CA_KEY_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    authority = CertificateAuthority(directory, name, key, certificate)
    Path(authority.certificate_path).write_bytes(certificate.public_bytes(Encoding.PEM))
    return authority


def _get_latest_time() -> datetime:
    """Return the later of two clocks: OpenSSL verifies certificates by the system time, the doctor
    by the clock of this package, which tests move.
    """
    return max(datetime.now(UTC), clock.now())


def _create_certificate_builder(
    subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, not_after: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=2))
        .not_valid_after(not_after)
    )


def _parse_general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


_CA_KEY_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def encode_private_key(key: Any, *, private_format: PrivateFormat = PrivateFormat.PKCS8) -> str:
    """Return the key's unencrypted PEM."""
    return str(key.private_bytes(Encoding.PEM, private_format, NoEncryption()).decode("ascii"))


def create_private_key_pem(kty: str) -> str:
    """Return the PEM of a new key of that kty, with the smallest accepted size."""
    factories: dict[str, Any] = {
        "RSA": lambda: rsa.generate_private_key(65537, 2048),
        "EC": lambda: ec.generate_private_key(ec.SECP256R1()),
        "OKP": ed25519.Ed25519PrivateKey.generate,
    }
    return encode_private_key(factories[kty]())
