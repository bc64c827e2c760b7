"""The name of this machine, as the formats of the audit log carry it."""

import socket


def get_hostname() -> str:
    """Return the host name of this machine, or `localhost`."""
    return socket.gethostname() or "localhost"
