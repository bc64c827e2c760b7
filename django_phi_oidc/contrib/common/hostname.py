"""The name of this machine, for the formats of the audit log."""

import socket


def get_hostname() -> str:
    """Return the host name of this machine, or `localhost`."""
    return socket.gethostname() or "localhost"
