"""R1: connections that end when their time is over, and pools that take back none of those.

The sockets' own time-outs bound one read each, so an answer that drips never passes them. What ends an exchange here
is a timer that shuts the connection down, by a second handle on its socket which is kept from before the TLS
handshake: handshake, headers and body then end at once, wherever they stand. The handle is a duplicate of the
descriptor, because the TLS wrapper takes the first one away, and because http.client closes it early.
"""

import contextlib
import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import TimeoutError as PoolTimeoutError
from urllib3.util.ssltransport import SSLTransport

from ..errors import TransportError, TransportTimeout, TransportTLS, TransportTooLarge, TransportUnreachable
from .deadlines import call_at

MAX_HEAD_BYTES = 64 * 1024


class TimedExchange:
    """The time of one request. When it is over, the socket in use is shut down, and no other is ever touched."""

    def __init__(self, timeout_seconds: float) -> None:
        self._ends_at = time.monotonic() + timeout_seconds
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None
        self.is_expired = False
        self.is_connection_reused = False
        """Whether the connection in use was a kept one."""
        self.requires_new_connection = False
        """Whether a kept one will not do."""

    def __enter__(self) -> Self:
        self.get_remaining_seconds()
        call_at(self._ends_at, self._expire)
        self._token = _current_exchange.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _current_exchange.reset(self._token)
        self.set_handle(None)

    def get_remaining_seconds(self) -> float:
        """Return the seconds that are left, more than none. Raises: TransportTimeout."""
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise TransportTimeout
        return left

    def connect(self, host: str, port: int, socket_options: Sequence[tuple[int, int, int | bytes]]) -> socket.socket:
        """Return a connected socket. The addresses of host share what is left of the time.

        Raises: TransportUnreachable, TransportTimeout.
        """
        self.is_connection_reused = False
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise TransportUnreachable("The OP's name does not resolve.") from None
        failed: TransportError = TransportUnreachable("The OP's name has no address.")
        for position, (family, kind, protocol, _, address) in enumerate(addresses):
            with contextlib.ExitStack() as opened:
                try:
                    connection = opened.enter_context(socket.socket(family, kind, protocol))
                    for option in socket_options:
                        connection.setsockopt(*option)
                    connection.settimeout(self.get_remaining_seconds() / (len(addresses) - position))
                    connection.connect(address)
                    connection.settimeout(self.get_remaining_seconds())
                    self.set_handle(connection.dup())
                except OSError as error:
                    failed = translate_error(error, is_expired=self.is_expired)
                else:
                    opened.pop_all()
                    return connection
        raise failed

    def set_handle(self, handle: socket.socket | None) -> None:
        """Make handle the one that is shut down at the end of the time; close the one before."""
        with self._lock:
            if self._handle is not None:
                self._handle.close()
            self._handle = handle
            if self.is_expired:
                self._shut_down_socket()

    def release_handle(self) -> socket.socket | None:
        """Return the handle, which the timer can't touch any more; None when it has been shut down."""
        with self._lock:
            if self.is_expired:
                return None
            handle, self._handle = self._handle, None
            return handle

    def _expire(self) -> None:
        with self._lock:
            self.is_expired = True
            self._shut_down_socket()

    def _shut_down_socket(self) -> None:
        if self._handle is not None:
            # The OP may have closed it first.
            with contextlib.suppress(OSError):
                self._handle.shutdown(socket.SHUT_RDWR)


_current_exchange: ContextVar[TimedExchange] = ContextVar("django_phi_oidc.provider.connection_pool")
"""urllib3 lets nothing of ours pass through to the connection that it picks."""


class MalformedHeaders(http.client.HTTPException):
    """The answer's headers are no header lines, or end within one."""


class LimitedHeaderReader:
    """What comes before a body, interim answers included, up to a limit: http.client has one for each line alone.

    Of a hundred lines of 64 KiB its parser makes 60 MB.
    """

    def __init__(self, source: io.BufferedIOBase) -> None:
        self._source = source
        self._remaining_bytes = MAX_HEAD_BYTES

    def readline(self, limit: int) -> bytes:
        """Return the next line. Raises: LineTooLong when the head is over its limit."""
        line = self._source.readline(min(limit, self._remaining_bytes + 1))
        self._remaining_bytes -= len(line)
        if self._remaining_bytes < 0:
            raise http.client.LineTooLong("head")
        return line

    def close(self) -> None:
        self._source.close()


class StrictResponse(http.client.HTTPResponse):
    """Refuses what urllib3 takes, with a warning that quotes it; takes no interim answer for the final one.

    http.client skips 100 alone: after a 103 the connection would be kept, and the next request given this one's answer.
    Spec: RFC 9110 15.2.
    """

    def begin(self) -> None:
        source = self.fp
        self.fp = LimitedHeaderReader(source)  # type: ignore[assignment]  # begin() calls nothing else of it
        try:
            super().begin()
            while self.status < 200:
                self.headers = None  # type: ignore[assignment]  # as before the first
                super().begin()
        finally:
            if self.fp is not None:
                self.fp = source
        if self.msg.defects:
            self.close()
            raise MalformedHeaders


class TimedConnection(HTTPConnection):
    """A connection whose handle is with its exchange while one is under way, and here while it is kept."""

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
    """The same over TLS."""


class TimedConnectionPool(urllib3.HTTPConnectionPool):
    """A pool that takes back no connection that was shut down. Use it within an Exchange."""

    ConnectionCls = TimedConnection

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection: Any = super()._get_conn(timeout)
        exchange = _current_exchange.get()
        if exchange.requires_new_connection:
            connection.close()
        exchange.is_connection_reused = not connection.is_closed
        exchange.set_handle(connection.handle)
        connection.exchange, connection.handle = exchange, None
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
    """The same over TLS."""

    ConnectionCls = TimedTLSConnection


def _has_unread_bytes(sock: Any) -> bool:
    """Say whether TLS has decrypted bytes that nobody read: behind an answer they would be the next request's.

    No poll of the socket sees them, so urllib3 takes such a connection for an idle one.
    """
    if isinstance(sock, SSLTransport):
        # TLS to the OP within TLS to a proxy: what either has read.
        return bool(sock.sslobj.pending() or sock.incoming.pending or _has_unread_bytes(sock.socket))
    return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0


def translate_error(error: Exception, *, is_expired: bool) -> TransportError:
    """Return our error for one of urllib3, http.client, ssl or socket, and nothing of its text.

    Theirs quote URLs, headers and what the OP sent.
    """
    root = _get_root_error(error)
    if is_expired or isinstance(root, TimeoutError | PoolTimeoutError):
        return TransportTimeout()
    if isinstance(root, ssl.SSLCertVerificationError):
        return TransportTLS(f"The OP's certificate could not be verified: {root.verify_message}")
    if isinstance(root, ssl.SSLError) and not isinstance(root, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return TransportTLS(f"TLS with the OP failed: {root.reason}")
    if isinstance(root, http.client.LineTooLong) or type(root) is http.client.HTTPException:
        # The latter is what http.client raises for more than 100 headers.
        return TransportTooLarge("The headers are over the limit.")
    return TransportUnreachable(f"The exchange with the OP broke off: {type(root).__name__}")


def _get_root_error(error: Exception) -> Exception:
    """urllib3 keeps the error that it wraps as an argument, a proxy's as an attribute."""
    inner = getattr(error, "original_error", None) or next((a for a in error.args if isinstance(a, Exception)), None)
    return error if inner is None else _get_root_error(inner)
