"""Connections that are opened from here: no proxy variable is read, no redirect followed, and each has a deadline."""

import ssl
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import SplitResult


def connect(url: SplitResult, *, timeout: float, trust: ssl.SSLContext | None = None) -> HTTPConnection:
    """Return a connection to the origin of url, not open yet; trust is for https, the system's when None."""
    if url.scheme == "https":
        return HTTPSConnection(url.netloc, timeout=timeout, context=trust or ssl.create_default_context())
    return HTTPConnection(url.netloc, timeout=timeout)


def target(url: SplitResult) -> str:
    """Return what stands in the request line for url: path and query."""
    return url._replace(scheme="", netloc="", fragment="").geturl() or "/"
