"""Addresses of this machine, for which a declaration may omit TLS. No Django."""

import ipaddress
from urllib.parse import urlsplit


def is_loopback_http(url: str) -> bool:
    """Say whether url is http on a loopback address: 127.0.0.0/8, [::1] or localhost."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "http" and bool(parts.hostname) and is_loopback(parts.hostname or "")
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Say whether host is localhost, in 127.0.0.0/8, or ::1."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
