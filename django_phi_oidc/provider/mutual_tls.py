"""The client certificate of TLS connections to a provider, in its files. Spec: RFC 8705 2."""

import ssl
from datetime import datetime

from ..config.certificates import get_expiry, read_certificate_chain
from ..config.providers import ProviderDeclaration
from ..errors import Code, TransportError

CertificateVersion = tuple[tuple[int, int], ...]
"""Modification time and inode of each file of the client certificate; empty: no certificate is
presented.
"""


def read_certificate_version(declaration: ProviderDeclaration) -> CertificateVersion:
    """Return what changes when a file of the client certificate is replaced; empty if none is
    declared.

    Raises: TransportTLS.
    """
    paths = filter(None, (declaration.client_certificate, declaration.client_certificate_key))
    try:
        certificate_version = []
        for status in (path.stat() for path in paths):
            certificate_version.append((status.st_mtime_ns, status.st_ino))
        return tuple(certificate_version)
    except OSError as error:
        raise TransportError(Code.TRANSPORT_TLS, "client_certificate cannot be read.") from error


def load_client_certificate(context: ssl.SSLContext, declaration: ProviderDeclaration) -> None:
    """Make connections of the context present the client certificate.

    Raises: TransportTLS, also if none is declared. Spec: RFC 8705 2.
    """
    path = declaration.client_certificate or ""
    try:
        # Without a password, OpenSSL asks for one on the terminal if the key is encrypted.
        context.load_cert_chain(path, declaration.client_certificate_key, password="")
    except ssl.SSLError as error:
        message = "client_certificate is no PEM with a certificate and its unencrypted private key."
        if error.reason == "KEY_VALUES_MISMATCH":
            message = "client_certificate_key is not the key of client_certificate."
        raise TransportError(Code.TRANSPORT_TLS, message) from error
    except OSError as error:
        raise TransportError(Code.TRANSPORT_TLS, "client_certificate cannot be read.") from error


def validate_client_certificate(declaration: ProviderDeclaration) -> None:
    """Raises: TransportTLS if a client certificate is declared, and connections can't present
    it.
    """
    if declaration.client_certificate is not None:
        load_client_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), declaration)


def list_certificate_expiries(declaration: ProviderDeclaration) -> list[tuple[str, datetime]]:
    """Return the option of each certificate of the client, and the end of its validity.

    Raises: DeclarationInvalid if the file of client_certificate cannot be read.
    """
    chains = []
    for key in declaration.client_keys:
        if key.certificate:
            chains.append(("client_keys", key.certificate))
    if declaration.client_certificate is not None:
        chains.append(
            ("client_certificate", read_certificate_chain(declaration.client_certificate))
        )
    certificate_expiries = []
    for option, chain in chains:
        certificate_expiries.append((option, get_expiry(chain[0])))
    return certificate_expiries
