"""HTTP connections of the provider to its clients, and of a test's user agent."""

import ssl
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import SplitResult


def create_connection(
    url: SplitResult, *, timeout_seconds: float, ssl_context: ssl.SSLContext | None = None
) -> HTTPConnection:
    """Return an unopened connection to the origin of url. ssl_context is for https; None: the
    system's CAs.
    """
    if url.scheme == "https":
        return HTTPSConnection(
            url.netloc, timeout=timeout_seconds, context=ssl_context or ssl.create_default_context()
        )
    return HTTPConnection(url.netloc, timeout=timeout_seconds)


def build_request_target(url: SplitResult) -> str:
    """Return the request target for url: path and query."""
    return url._replace(scheme="", netloc="", fragment="").geturl() or "/"
