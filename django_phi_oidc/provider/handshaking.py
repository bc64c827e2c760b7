"""A handshake with the OP for its own sake: what TLS came to, and how long the certificate lasts."""

import socket
import ssl
from datetime import UTC, datetime
from urllib.parse import urlsplit

from ..declarations import ProviderDeclaration
from .http import build_context
from .pooling import translate


def shake_hands(url: str, *, declaration: ProviderDeclaration, seconds: float) -> tuple[str, datetime]:
    """Return TLS's version and the end of the certificate, which was verified as for every request.

    seconds: for each step. Requires: an https URL with a host, and no proxy.
    Raises: TransportTLS, TransportTimeout, TransportUnreachable.
    """
    parts, context = urlsplit(url), build_context(declaration.ca_bundle)
    address = parts.hostname or "", parts.port or 443
    try:
        with (
            socket.create_connection(address, timeout=seconds) as connection,
            context.wrap_socket(connection, server_hostname=address[0]) as tls,
        ):
            until = ssl.cert_time_to_seconds(str((tls.getpeercert() or {})["notAfter"]))
            return tls.version() or "", datetime.fromtimestamp(until, UTC)
    except (OSError, UnicodeError) as error:
        raise translate(error, expired=False) from None
