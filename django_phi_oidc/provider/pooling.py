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
from .watching import call_at

MAX_HEAD_BYTES = 64 * 1024


class Exchange:
    """The time of one request. When it is over, the socket in use is shut down, and no other is ever touched."""

    def __init__(self, seconds: float) -> None:
        self._ends_at = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None
        self.expired = False
        self.reused = False
        """Whether the connection in use was a kept one."""
        self.wants_fresh = False
        """Whether a kept one will not do."""

    def __enter__(self) -> Self:
        self.left()
        call_at(self._ends_at, self._expire)
        self._token = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _current.reset(self._token)
        self.hold(None)

    def left(self) -> float:
        """Return the seconds that are left, more than none. Raises: TransportTimeout."""
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise TransportTimeout
        return left

    def connect(self, host: str, port: int, options: Sequence[tuple[int, int, int | bytes]]) -> socket.socket:
        """Return a connected socket. The addresses of host share what is left of the time.

        Raises: TransportUnreachable, TransportTimeout.
        """
        self.reused = False
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise TransportUnreachable("The OP's name does not resolve.") from None
        failed: TransportError = TransportUnreachable("The OP's name has no address.")
        for position, (family, kind, protocol, _, address) in enumerate(addresses):
            with contextlib.ExitStack() as opened:
                try:
                    connection = opened.enter_context(socket.socket(family, kind, protocol))
                    for option in options:
                        connection.setsockopt(*option)
                    connection.settimeout(self.left() / (len(addresses) - position))
                    connection.connect(address)
                    connection.settimeout(self.left())
                    self.hold(connection.dup())
                except OSError as error:
                    failed = translate(error, expired=self.expired)
                else:
                    opened.pop_all()
                    return connection
        raise failed

    def hold(self, handle: socket.socket | None) -> None:
        """Make handle the one that is shut down at the end of the time; close the one before."""
        with self._lock:
            if self._handle is not None:
                self._handle.close()
            self._handle = handle
            if self.expired:
                self._cut()

    def let_go(self) -> socket.socket | None:
        """Return the handle, which the timer can't touch any more; None when it has been shut down."""
        with self._lock:
            if self.expired:
                return None
            handle, self._handle = self._handle, None
            return handle

    def _expire(self) -> None:
        with self._lock:
            self.expired = True
            self._cut()

    def _cut(self) -> None:
        if self._handle is not None:
            # The OP may have closed it first.
            with contextlib.suppress(OSError):
                self._handle.shutdown(socket.SHUT_RDWR)


_current: ContextVar[Exchange] = ContextVar("django_phi_oidc.provider.pooling")
"""urllib3 lets nothing of ours pass through to the connection that it picks."""


class HeadersBroken(http.client.HTTPException):
    """The answer's headers are no header lines, or end within one."""


class Head:
    """What comes before a body, interim answers included, up to a limit: http.client has one for each line alone.

    Of a hundred lines of 64 KiB its parser makes 60 MB.
    """

    def __init__(self, source: io.BufferedIOBase) -> None:
        self._source = source
        self._left = MAX_HEAD_BYTES

    def readline(self, limit: int) -> bytes:
        """Return the next line. Raises: LineTooLong when the head is over its limit."""
        line = self._source.readline(min(limit, self._left + 1))
        self._left -= len(line)
        if self._left < 0:
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
        self.fp = Head(source)  # type: ignore[assignment]  # begin() calls nothing else of it
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
            raise HeadersBroken


class Connection(HTTPConnection):
    """A connection whose handle is with its exchange while one is under way, and here while it is kept."""

    response_class = StrictResponse
    exchange: Exchange
    handle: socket.socket | None = None

    def close(self) -> None:
        super().close()
        if self.handle is not None:
            self.handle.close()
            self.handle = None

    def _new_conn(self) -> socket.socket:
        return self.exchange.connect(self.host, self.port, self.socket_options or ())


class TLSConnection(Connection, HTTPSConnection):
    """The same over TLS."""


class Pool(urllib3.HTTPConnectionPool):
    """A pool that takes back no connection that was shut down. Use it within an Exchange."""

    ConnectionCls = Connection

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection: Any = super()._get_conn(timeout)
        exchange = _current.get()
        if exchange.wants_fresh:
            connection.close()
        exchange.reused = not connection.is_closed
        exchange.hold(connection.handle)
        connection.exchange, connection.handle = exchange, None
        return connection

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.handle = conn.exchange.let_go()
            del conn.exchange
            if conn.handle is None or conn.is_closed or _holds_surplus(conn.sock):
                conn.close()
                conn = None
        super()._put_conn(conn)


class TLSPool(Pool, urllib3.HTTPSConnectionPool):
    """The same over TLS."""

    ConnectionCls = TLSConnection


def _holds_surplus(sock: Any) -> bool:
    """Say whether TLS has decrypted bytes that nobody read: behind an answer they would be the next request's.

    No poll of the socket sees them, so urllib3 takes such a connection for an idle one.
    """
    if isinstance(sock, SSLTransport):
        # TLS to the OP within TLS to a proxy: what either has read.
        return bool(sock.sslobj.pending() or sock.incoming.pending or _holds_surplus(sock.socket))
    return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0


def translate(error: Exception, *, expired: bool) -> TransportError:
    """Return our error for one of urllib3, http.client, ssl or socket, and nothing of its text.

    Theirs quote URLs, headers and what the OP sent.
    """
    root = _root(error)
    if expired or isinstance(root, TimeoutError | PoolTimeoutError):
        return TransportTimeout()
    if isinstance(root, ssl.SSLCertVerificationError):
        return TransportTLS(f"The OP's certificate could not be verified: {root.verify_message}")
    if isinstance(root, ssl.SSLError) and not isinstance(root, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return TransportTLS(f"TLS with the OP failed: {root.reason}")
    if isinstance(root, http.client.LineTooLong) or type(root) is http.client.HTTPException:
        # The latter is what http.client raises for more than 100 headers.
        return TransportTooLarge("The headers are over the limit.")
    return TransportUnreachable(f"The exchange with the OP broke off: {type(root).__name__}")


def _root(error: Exception) -> Exception:
    """urllib3 keeps the error that it wraps as an argument, a proxy's as an attribute."""
    inner = getattr(error, "original_error", None) or next((a for a in error.args if isinstance(a, Exception)), None)
    return error if inner is None else _root(inner)
