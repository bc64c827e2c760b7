"""The threaded server: loopback alone, plain or TLS, and gone without a trace when closed."""

import contextlib
import ipaddress
import logging
import socket
import socketserver
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from .endpoints import answer, answer_malformed
from .messages import Pairs, Reply, Request
from .registrations import TLSFiles
from .state import State

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024
MAX_FIELDS = 100
IDLE_SECONDS = 30.0
CLOSING_SECONDS = 5.0


def loopback(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the loopback address that host is.

    Raises: ValueError for every other: the demo provider has published passwords.
    """
    address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    if not address.is_loopback:
        raise ValueError(f"The demo provider binds to loopback alone, not to {host}.")
    return address


class Handler(BaseHTTPRequestHandler):
    """Reads one request after the other from a connection and writes what the endpoints answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = IDLE_SECONDS
    server: "Server"

    def do_GET(self) -> None:
        """Answer a GET."""
        self._answer()

    def do_POST(self) -> None:
        """Answer a POST."""
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- http.server's signature
        """Log nothing by this way: http.server would write the query string, and a query holds codes."""

    def _answer(self) -> None:
        state = self.server.state
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdigit()):
            self._send(answer_malformed(state, 400), close=True)
        elif int(length) > MAX_BODY_BYTES:
            self._send(answer_malformed(state, 413), close=True)
        else:
            body = self.rfile.read(int(length))
            try:
                request = self._request(body)
            except ValueError:
                reply = answer_malformed(state, 400)
            else:
                reply = answer(state, request)
                logger.debug("%s %s: %s", request.method, request.path, reply.status)
            self._send(reply)

    def _request(self, body: bytes) -> Request:
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        form = headers.get("content-type", "").partition(";")[0].strip() == "application/x-www-form-urlencoded"
        return Request(
            method=self.command,
            path=unquote(url.path),
            query=_pairs(url.query),
            form=_pairs(body.decode("ascii")) if form else (),
            headers=headers,
            cookies=_cookies(headers.get("cookie", "")),
            target=self.path,
        )

    def _send(self, reply: Reply, *, close: bool = False) -> None:
        if reply.raw is None:
            self.close_connection = self.close_connection or close
            self.wfile.write(reply.to_bytes(date=self.date_time_string(), close=self.close_connection))
            return
        self.close_connection = True
        for piece in reply.raw:
            self.wfile.write(piece)


def _pairs(text: str) -> Pairs:
    return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)


def _cookies(text: str) -> dict[str, str]:
    # http.cookies stops at the first cookie it dislikes, and other ports of this host set theirs too.
    pairs = [piece.strip().partition("=") for piece in text.split(";")]
    return {name: value for name, _, value in pairs}


class Server(ThreadingHTTPServer):
    """Serves a State, one thread for each connection."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, state: State, *, host: str, port: int, tls: TLSFiles | None) -> None:
        address = loopback(host)
        self.state = state
        self.address_family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        self._live: dict[socket.socket, socket.socket] = {}
        self._gone = threading.Condition()
        self._tls: ssl.SSLContext | None = None
        if tls is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
            self._tls.load_cert_chain(tls.cert, tls.key)
        super().__init__((str(address), port), Handler)

    def server_bind(self) -> None:
        """Bind without http.server's look-up of the host's own name, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def close(self) -> None:
        """Stop serving: every connection is cut, and its thread waited for, 5 s at most."""
        self.shutdown()
        self.server_close()
        with self._gone:
            for live in self._live.values():
                # Beneath TLS, whose own shutdown would pull the session from under a reading thread.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(live, socket.SHUT_RDWR)
            if not self._gone.wait_for(lambda: not self._live, timeout=CLOSING_SECONDS):
                logger.warning("A connection of the demo provider outlived it.")

    def process_request(self, request: Any, client_address: Any) -> None:
        """Count the connection before its thread starts."""
        with self._gone:
            self._live[request] = request
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve the connection and count it out, whatever became of it."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._gone:
                del self._live[request]
                self._gone.notify_all()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve the connection; the TLS handshake is made here, so that a slow one holds up nobody else."""
        if self._tls is None:
            Handler(request, client_address, self)
            return
        request.settimeout(IDLE_SECONDS)
        with self._tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False) as secured:
            with self._gone:
                self._live[request] = secured
            secured.do_handshake()
            Handler(secured, client_address, self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a fault of the endpoints or of the hook; a peer that went away is nothing to log loudly."""
        error = sys.exception()
        if isinstance(error, OSError):
            logger.debug("A connection broke: %s", type(error).__name__)
        else:
            logger.error("An endpoint or its hook failed.", exc_info=error)
