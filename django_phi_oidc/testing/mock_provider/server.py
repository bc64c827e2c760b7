"""The threaded HTTP server, on loopback only, with or without TLS."""

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
    """Return host as a loopback address.

    Raises: ValueError for all others, because the passwords of the demo provider are public.
    """
    address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    if not address.is_loopback:
        raise ValueError(f"The demo provider binds only to loopback, not to {host}.")
    return address


class ProviderRequestHandler(BaseHTTPRequestHandler):
    """Reads the requests of a connection and writes the replies of the endpoints."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = IDLE_TIMEOUT_SECONDS
    server: "ProviderServer"

    def do_GET(self) -> None:
        self._process_request()

    def do_POST(self) -> None:
        self._process_request()

    def do_PATCH(self) -> None:
        self._process_request()

    def do_DELETE(self) -> None:
        self._process_request()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- http.server's signature
        """Do not log: http.server would log the query string, which may contain codes."""

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
        headers = {}
        for name, value in self.headers.items():
            headers[name.lower()] = value
        is_form = (
            headers.get("content-type", "").partition(";")[0].strip()
            == "application/x-www-form-urlencoded"
        )
        return ReceivedRequest(
            method=self.command,
            path=unquote(url.path),
            query=_parse_pairs(url.query),
            form=_parse_pairs(body.decode("ascii")) if is_form else (),
            headers=headers,
            cookies=_parse_cookies(headers.get("cookie", "")),
            request_target=self.path,
            body=body,
        )

    def _send_reply(self, reply: Reply, *, close: bool = False) -> None:
        if reply.raw is None:
            self.close_connection = self.close_connection or close
            self.wfile.write(
                reply.to_bytes(date=self.date_time_string(), close=self.close_connection)
            )
            return
        self.close_connection = True
        for chunk in reply.raw:
            self.wfile.write(chunk)


def _parse_pairs(text: str) -> ParameterPairs:
    return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)


def _parse_cookies(text: str) -> dict[str, str]:
    # http.cookies stops at the first invalid cookie, and other ports of this host set cookies, too.
    pairs = []
    for pair in text.split(";"):
        pairs.append(pair.strip().partition("="))
    cookies = {}
    for name, _, value in pairs:
        cookies[name] = value
    return cookies


class ProviderServer(ThreadingHTTPServer):
    """Serves a ProviderState with one thread per connection."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, state: ProviderState, *, host: str, port: int, tls: TLSFiles | None) -> None:
        address = parse_loopback_address(host)
        self.state = state

        if address.version == 4:
            self.address_family = socket.AF_INET
        else:
            self.address_family = socket.AF_INET6

        self._connections: dict[socket.socket, socket.socket] = {}
        self._connections_changed = threading.Condition()
        self._ssl_context: ssl.SSLContext | None = None
        if tls is not None:
            self._ssl_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._ssl_context.minimum_version = ssl.TLSVersion.TLSv1_2
            self._ssl_context.load_cert_chain(tls.certificate_path, tls.key_path)
        super().__init__((str(address), port), ProviderRequestHandler)

    def server_bind(self) -> None:
        """Bind without the host name lookup of http.server, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name = str(self.server_address[0])
        self.server_port = int(self.server_address[1])

    def close(self) -> None:
        """Stop serving: close all connections and wait at most 5 s for their threads."""
        self.shutdown()
        self.server_close()
        with self._connections_changed:
            for connection in self._connections.values():
                # Shut down the plain socket: a TLS shutdown would free the session while a thread
                # reads from it.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
            if not self._connections_changed.wait_for(
                lambda: not self._connections, timeout=CLOSE_TIMEOUT_SECONDS
            ):
                logger.warning("A connection of the demo provider was not closed in time.")

    def process_request(self, request: Any, client_address: Any) -> None:
        """Register the connection before its thread starts."""
        with self._connections_changed:
            self._connections[request] = request
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve the connection and always unregister it."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._connections_changed:
                del self._connections[request]
                self._connections_changed.notify_all()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve the connection. The TLS handshake runs in this thread, so a slow one does not block
        others.
        """
        if self._ssl_context is None:
            ProviderRequestHandler(request, client_address, self)
            return
        request.settimeout(IDLE_TIMEOUT_SECONDS)
        with self._ssl_context.wrap_socket(
            request, server_side=True, do_handshake_on_connect=False
        ) as tls_socket:
            with self._connections_changed:
                self._connections[request] = tls_socket
            tls_socket.do_handshake()
            ProviderRequestHandler(tls_socket, client_address, self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log errors of endpoints and hooks; log a disconnected client only at DEBUG level."""
        error = sys.exception()
        if isinstance(error, OSError):
            logger.debug("A connection failed: %s", type(error).__name__)
        else:
            logger.error("An endpoint or its hook failed.", exc_info=error)
