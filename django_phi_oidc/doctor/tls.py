"""A TLS handshake with the provider, to read the TLS version and the expiry of the certificate."""

import socket
import ssl
from datetime import UTC, datetime
from urllib.parse import urlsplit

from ..config.providers import ProviderDeclaration
from ..provider.connection_pool import translate_error
from ..provider.http_transport import create_ssl_context


def get_tls_version_and_expiry(
    url: str, *, declaration: ProviderDeclaration, timeout_seconds: float
) -> tuple[str, datetime]:
    """Return the TLS version and the expiry of the certificate, which is verified as for every request.

    timeout_seconds: for each step. Requires: an https URL with a host, and no proxy.
    Raises: TransportTLS, TransportTimeout, TransportUnreachable.
    """
    parts, context = urlsplit(url), create_ssl_context(declaration.ca_bundle)
    address = parts.hostname or "", parts.port or 443
    try:
        with (
            socket.create_connection(address, timeout=timeout_seconds) as connection,
            context.wrap_socket(connection, server_hostname=address[0]) as tls,
        ):
            expires_at = ssl.cert_time_to_seconds(str((tls.getpeercert() or {})["notAfter"]))
            return tls.version() or "", datetime.fromtimestamp(expires_at, UTC)
    except (OSError, UnicodeError) as error:
        raise translate_error(error, is_expired=False) from None
