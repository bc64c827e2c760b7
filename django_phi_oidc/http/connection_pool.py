"""R1: connections that are shut down at the deadline of their exchange, and pools that never reuse
such a connection.

Socket timeouts bound each read, so a response that drips never exceeds them. Here a timer shuts the
connection down through a second handle on its socket, created before the TLS handshake, so that
handshake, headers and body all end at once. The handle is a duplicate of the descriptor, because
the TLS wrapper takes over the first one and because http.client closes it early.

This is the only module that relies on internals of urllib3 and http.client. The tests run with
urllib3 2.2 on Python 3.11 and the newest 2.x on Python 3.13:
- urllib3: `HTTPConnection._new_conn`, `HTTPConnectionPool._get_conn` and `_put_conn`,
  `ConnectionCls`, `response_class`, the attributes `sslobj`, `incoming` and `socket` of
  `SSLTransport`, and wrapped errors in `original_error` or `args`.
- http.client: `HTTPResponse.begin()` reads the head through `fp.readline` alone, can run again once
  `headers` is None, and reports malformed header lines in `msg.defects`; more than 100 headers
  raise HTTPException itself. Each chunk begins with `_read_next_chunk_size()`, which may raise
  ValueError.
"""

import contextlib
import http.client
import io
import re
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, Self

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import TimeoutError as PoolTimeoutError
from urllib3.util.ssltransport import SSLTransport

from .._internal import deadlines
from ..errors import Code, TransportError

MAX_HEAD_BYTES = 64 * 1024
_MAX_LINE_BYTES = 65536
_STATUS_LINE_PATTERN = re.compile(rb"HTTP/1\.[0-9] [0-9]{3}(?: [^\r\n]*)?\r?\n")
"""Spec: RFC 9112 4. A missing space before an empty reason is accepted."""
_CONTENT_LENGTH_PATTERN = re.compile(r"[0-9]{1,18}(?:[ \t]*,[ \t]*[0-9]{1,18})*")
_CHUNK_SIZE_PATTERN = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r?\n")
"""Spec: RFC 9112 7.1, 7.1.1."""


class TimedExchange:
    """The time limit of one request. At its end the socket in use is shut down, and no other."""

    def __init__(self, timeout_seconds: float) -> None:
        self._ends_at = time.monotonic() + timeout_seconds
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None
        self.is_expired = False
        self.is_connection_reused = False
        """Whether the connection in use comes from the pool."""
        self.requires_new_connection = False
        """Whether pooled connections must not be used."""

    def __enter__(self) -> Self:
        self.get_remaining_seconds()
        self._cancel_timer = deadlines.call_at(self._ends_at, self._expire)
        self._token = _current_exchange.set(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        _current_exchange.reset(self._token)
        self._cancel_timer()
        self.set_handle(None)

    def get_remaining_seconds(self) -> float:
        """Return the remaining seconds, always positive. Raises: TransportTimeout."""
        remaining = self._ends_at - time.monotonic()
        if remaining <= 0:
            raise TransportError(Code.TRANSPORT_TIMEOUT)
        return remaining

    def connect(
        self, host: str, port: int, socket_options: Sequence[tuple[int, int, int | bytes]]
    ) -> socket.socket:
        """Return a connected socket. Host addresses share the remaining time. Raises:
        TransportError.
        """
        self.is_connection_reused = False
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise TransportError(
                Code.TRANSPORT_UNREACHABLE, "The provider's host name does not resolve."
            ) from None
        error: TransportError = TransportError(
            Code.TRANSPORT_UNREACHABLE, "The provider's host name has no address."
        )
        for position, (family, kind, protocol, _, address) in enumerate(addresses):
            with contextlib.ExitStack() as stack:
                try:
                    connection = stack.enter_context(socket.socket(family, kind, protocol))
                    for option in socket_options:
                        connection.setsockopt(*option)
                    connection.settimeout(
                        self.get_remaining_seconds() / (len(addresses) - position)
                    )
                    connection.connect(address)
                    connection.settimeout(self.get_remaining_seconds())
                    self.set_handle(connection.dup())
                except OSError as os_error:
                    error = translate_error(os_error, is_expired=self.is_expired)
                else:
                    stack.pop_all()
                    return connection
        raise error

    def set_handle(self, handle: socket.socket | None) -> None:
        """Set the handle that the timer shuts down, and close the previous one."""
        with self._lock:
            if self._handle is not None:
                self._handle.close()
            self._handle = handle
            if self.is_expired:
                self._shut_down_socket()

    def release_handle(self) -> socket.socket | None:
        """Take the handle away from the timer and return it; None after the deadline."""
        with self._lock:
            if self.is_expired:
                return None
            handle = self._handle
            self._handle = None
            return handle

    def _expire(self) -> None:
        with self._lock:
            self.is_expired = True
            self._shut_down_socket()

    def _shut_down_socket(self) -> None:
        if self._handle is not None:
            # The provider may have closed it first.
            with contextlib.suppress(OSError):
                self._handle.shutdown(socket.SHUT_RDWR)


_current_exchange: ContextVar[TimedExchange] = ContextVar("django_phi_oidc.http.connection_pool")
"""urllib3 has no parameter that reaches the connection that the pool selects."""


class MalformedHeaders(http.client.HTTPException):
    """A line of the response head is no header line, or the head is truncated."""


class StrictHeaderReader:
    """Limits all that precedes a body, and refuses truncated lines and malformed status lines.

    http.client limits lines only, and turns a hundred of 64 KiB into 60 MB. It takes the end of the
    connection for the end of the head, so that a response cut after `HTTP/1.1 200 O` would be a
    complete one.
    """

    def __init__(self, source: io.BufferedIOBase) -> None:
        self._source = source
        self._remaining_bytes = MAX_HEAD_BYTES

    def readline(self, limit: int) -> bytes:
        """Return the next line; empty if the connection ended before the first one.

        Raises: LineTooLong when the head exceeds its limit; MalformedHeaders.
        """
        line = self._source.readline(min(limit, self._remaining_bytes + 1))
        is_first = self._remaining_bytes == MAX_HEAD_BYTES
        self._remaining_bytes -= len(line)
        if self._remaining_bytes < 0:
            raise http.client.LineTooLong("head")
        is_truncated = not line.endswith(b"\n") and len(line) < limit
        if is_truncated and not (is_first and not line):
            raise MalformedHeaders
        # No header line begins like this: a name contains no slash.
        if line.startswith(b"HTTP/") and not _STATUS_LINE_PATTERN.fullmatch(line):
            raise MalformedHeaders
        return line

    def close(self) -> None:
        self._source.close()


class StrictResponse(http.client.HTTPResponse):
    """Refuses malformed headers, which urllib3 accepts with a warning that quotes them, and skips
    interim responses.

    http.client skips only 100. After a 103 the connection would be reused, and the next request
    would receive this one's response. Lengths and sizes of chunks are digits: int() accepts `0x5`,
    `+5` and `1_0` as well, which other programs on the way read differently. Spec: RFC 9110 8.6,
    15.2; RFC 9112 7.1.
    """

    def begin(self) -> None:
        source = self.fp
        self.fp = StrictHeaderReader(source)  # type: ignore[assignment]  # begin() calls only readline
        try:
            super().begin()
            while self.status < 200:
                self.headers = None  # type: ignore[assignment]  # as before the first call
                super().begin()
        finally:
            if self.fp is not None:
                self.fp = source
        lengths = self.msg.get_all("content-length", [])
        if self.msg.defects or not all(
            _CONTENT_LENGTH_PATTERN.fullmatch(length.strip()) for length in lengths
        ):
            self.close()
            raise MalformedHeaders

    def _read_next_chunk_size(self) -> int:
        line = self.fp.readline(_MAX_LINE_BYTES + 1)
        if len(line) > _MAX_LINE_BYTES:
            raise http.client.LineTooLong("chunk size")
        size = _CHUNK_SIZE_PATTERN.fullmatch(line)
        if size is None:
            raise ValueError("This is no size of a chunk.")
        return int(size[1], 16)


class TimedConnection(HTTPConnection):
    """A connection whose handle belongs to the current exchange, or to the connection while it is
    pooled.
    """

    response_class = StrictResponse
    exchange: TimedExchange
    handle: socket.socket | None = None

    def close(self) -> None:
        super().close()
        if self.handle is not None:
            self.handle.close()
            self.handle = None

    def _new_conn(self) -> socket.socket:
        return self.exchange.connect(self.host, self.port, self.socket_options or ())


class TimedTLSConnection(TimedConnection, HTTPSConnection):
    """TimedConnection over TLS."""


class TimedConnectionPool(urllib3.HTTPConnectionPool):
    """A pool that takes back no connection that was shut down. Use it within a TimedExchange."""

    ConnectionCls = TimedConnection

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection: Any = super()._get_conn(timeout)
        exchange = _current_exchange.get()
        if exchange.requires_new_connection:
            connection.close()
        exchange.is_connection_reused = not connection.is_closed
        exchange.set_handle(connection.handle)
        connection.exchange = exchange
        connection.handle = None
        return connection

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.handle = conn.exchange.release_handle()
            del conn.exchange
            if conn.handle is None or conn.is_closed or _has_unread_bytes(conn.sock):
                conn.close()
                conn = None
        super()._put_conn(conn)


class TimedTLSConnectionPool(TimedConnectionPool, urllib3.HTTPSConnectionPool):
    """TimedConnectionPool over TLS."""

    ConnectionCls = TimedTLSConnection


def _has_unread_bytes(sock: Any) -> bool:
    """Return whether TLS has decrypted bytes that are still unread: they would become the next
    request's response.

    Polling the socket does not show them, so urllib3 considers such a connection idle.
    """
    if isinstance(sock, SSLTransport):
        # TLS to the provider inside TLS to a proxy: check both layers.
        return bool(
            sock.sslobj.pending() or sock.incoming.pending or _has_unread_bytes(sock.socket)
        )
    return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0


def translate_error(error: Exception, *, is_expired: bool) -> TransportError:
    """Return the TransportError for an error, without its text, which quotes URLs, headers and
    received data.
    """
    root = error
    while inner := getattr(root, "original_error", None) or next(
        (a for a in root.args if isinstance(a, Exception)), None
    ):
        root = inner
    if is_expired or isinstance(root, TimeoutError | PoolTimeoutError):
        return TransportError(Code.TRANSPORT_TIMEOUT)
    if isinstance(root, ssl.SSLCertVerificationError):
        message = f"The provider's certificate could not be verified: {root.verify_message}"
        return TransportError(Code.TRANSPORT_TLS, message)
    if isinstance(root, ssl.SSLError) and not isinstance(
        root, ssl.SSLEOFError | ssl.SSLZeroReturnError
    ):
        return TransportError(Code.TRANSPORT_TLS, f"TLS with the provider failed: {root.reason}")
    if isinstance(root, http.client.LineTooLong) or type(root) is http.client.HTTPException:
        # http.client raises the latter for more than 100 headers.
        return TransportError(Code.TRANSPORT_TOO_LARGE, "The headers exceed the limit.")
    message = f"The exchange with the provider was interrupted: {type(root).__name__}"
    return TransportError(Code.TRANSPORT_UNREACHABLE, message)
