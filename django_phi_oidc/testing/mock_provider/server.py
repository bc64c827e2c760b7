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

from .endpoints import handle_malformed_request, handle_request
from .messages import ParameterPairs, ReceivedRequest, Reply
from .registrations import TLSFiles
from .state import ProviderState

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024
MAX_FIELDS = 100
IDLE_TIMEOUT_SECONDS = 30.0
CLOSE_TIMEOUT_SECONDS = 5.0


def parse_loopback_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the loopback address that host is.

    Raises: ValueError for every other: the demo provider has published passwords.
    """
    address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    if not address.is_loopback:
        raise ValueError(f"The demo provider binds to loopback alone, not to {host}.")
    return address


class ProviderRequestHandler(BaseHTTPRequestHandler):
    """Reads one request after the other from a connection and writes what the endpoints answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = IDLE_TIMEOUT_SECONDS
    server: "ProviderServer"

    def do_GET(self) -> None:
        """Answer a GET."""
        self._process_request()

    def do_POST(self) -> None:
        """Answer a POST."""
        self._process_request()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- http.server's signature
        """Log nothing by this way: http.server would write the query string, and a query holds codes."""

    def _process_request(self) -> None:
        state = self.server.state
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdigit()):
            self._send_reply(handle_malformed_request(state, 400), close=True)
        elif int(length) > MAX_BODY_BYTES:
            self._send_reply(handle_malformed_request(state, 413), close=True)
        else:
            body = self.rfile.read(int(length))
            try:
                request = self._parse_request(body)
            except ValueError:
                reply = handle_malformed_request(state, 400)
            else:
                reply = handle_request(state, request)
                logger.debug("%s %s: %s", request.method, request.path, reply.status)
            self._send_reply(reply)

    def _parse_request(self, body: bytes) -> ReceivedRequest:
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        form = headers.get("content-type", "").partition(";")[0].strip() == "application/x-www-form-urlencoded"
        return ReceivedRequest(
            method=self.command,
            path=unquote(url.path),
            query=_parse_pairs(url.query),
            form=_parse_pairs(body.decode("ascii")) if form else (),
            headers=headers,
            cookies=_parse_cookies(headers.get("cookie", "")),
            request_target=self.path,
        )

    def _send_reply(self, reply: Reply, *, close: bool = False) -> None:
        if reply.raw is None:
            self.close_connection = self.close_connection or close
            self.wfile.write(reply.to_bytes(date=self.date_time_string(), close=self.close_connection))
            return
        self.close_connection = True
        for piece in reply.raw:
            self.wfile.write(piece)


def _parse_pairs(text: str) -> ParameterPairs:
    return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)


def _parse_cookies(text: str) -> dict[str, str]:
    # http.cookies stops at the first cookie it dislikes, and other ports of this host set theirs too.
    pairs = [piece.strip().partition("=") for piece in text.split(";")]
    return {name: value for name, _, value in pairs}


class ProviderServer(ThreadingHTTPServer):
    """Serves a State, one thread for each connection."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, state: ProviderState, *, host: str, port: int, tls: TLSFiles | None) -> None:
        address = parse_loopback_address(host)
        self.state = state
        self.address_family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        self._connections: dict[socket.socket, socket.socket] = {}
        self._connections_changed = threading.Condition()
        self._ssl_context: ssl.SSLContext | None = None
        if tls is not None:
            self._ssl_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._ssl_context.minimum_version = ssl.TLSVersion.TLSv1_2
            self._ssl_context.load_cert_chain(tls.certificate_path, tls.key_path)
        super().__init__((str(address), port), ProviderRequestHandler)

    def server_bind(self) -> None:
        """Bind without http.server's look-up of the host's own name, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def close(self) -> None:
        """Stop serving: every connection is cut, and its thread waited for, 5 s at most."""
        self.shutdown()
        self.server_close()
        with self._connections_changed:
            for live in self._connections.values():
                # Beneath TLS, whose own shutdown would pull the session from under a reading thread.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(live, socket.SHUT_RDWR)
            if not self._connections_changed.wait_for(lambda: not self._connections, timeout=CLOSE_TIMEOUT_SECONDS):
                logger.warning("A connection of the demo provider outlived it.")

    def process_request(self, request: Any, client_address: Any) -> None:
        """Count the connection before its thread starts."""
        with self._connections_changed:
            self._connections[request] = request
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve the connection and count it out, whatever became of it."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._connections_changed:
                del self._connections[request]
                self._connections_changed.notify_all()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve the connection; the TLS handshake is made here, so that a slow one holds up nobody else."""
        if self._ssl_context is None:
            ProviderRequestHandler(request, client_address, self)
            return
        request.settimeout(IDLE_TIMEOUT_SECONDS)
        with self._ssl_context.wrap_socket(request, server_side=True, do_handshake_on_connect=False) as secured:
            with self._connections_changed:
                self._connections[request] = secured
            secured.do_handshake()
            ProviderRequestHandler(secured, client_address, self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a fault of the endpoints or of the hook; a peer that went away is nothing to log loudly."""
        error = sys.exception()
        if isinstance(error, OSError):
            logger.debug("A connection broke: %s", type(error).__name__)
        else:
            logger.error("An endpoint or its hook failed.", exc_info=error)
