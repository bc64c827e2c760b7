"""Collectors on real sockets with configurable faults, which stop and restart on the same port."""

import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = str


class SyslogServer:
    """Receives syslog frames over TLS or plain TCP, and records each complete message at once.

    fault: `cut` closes after three messages of a connection, `reset` resets there, `hang` reads and never ends,
    `silent` reads nothing and never ends, `end` reads all and ends TCP without a close_notify.
    """

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.context = context
        self.fault: Fault = ""
        self.messages: list[bytes] = []
        self.errors: list[str] = []
        self._released = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._listen()

    def go_down(self) -> None:
        """Refuse connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads.pop(0).join()

    def come_back(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listen()

    def close(self) -> None:
        self._released.set()
        self.go_down()
        for thread in self._threads:
            thread.join()

    def _listen(self) -> None:
        thread = threading.Thread(target=self._accept, args=(self._listener,))
        self._threads.insert(0, thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(10)
            try:
                if self.fault == "silent":
                    self._released.wait(10)
                    return
                stream = self.context.wrap_socket(connection, server_side=True) if self.context else connection
                with stream:
                    self._read(stream)
            except OSError as error:
                self.errors.append(type(error).__name__)

    def _read(self, connection: socket.socket) -> None:
        buffer, count = b"", 0
        while True:
            while (message := _frame(buffer)) is not None:
                if self.fault in ("cut", "reset") and count == 3:
                    if self.fault == "reset":
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                count += 1
                self.messages.append(message)
                buffer = buffer[buffer.index(b" ") + 1 + len(message) :]
            chunk = connection.recv(512 if self.fault in ("cut", "reset") else 65536)
            if not chunk:
                break
            buffer += chunk
        if self.fault == "hang":
            self._released.wait(10)
        elif self.fault == "end":
            return
        elif isinstance(connection, ssl.SSLSocket):
            connection.unwrap().close()


def _frame(buffer: bytes) -> bytes | None:
    length, space, rest = buffer.partition(b" ")
    if not space or len(rest) < int(length):
        return None
    return rest[: int(length)]


@contextmanager
def syslog_server(context: ssl.SSLContext | None) -> Iterator[SyslogServer]:
    server = SyslogServer(context)
    try:
        yield server
    finally:
        server.close()


Answering = Callable[[BaseHTTPRequestHandler, "Collector"], None]


class Collector:
    """An HTTPS collector of lines or FHIR batches. It records a request before it responds.

    fault: a status, `garbage`, `hang`, `cut` (closes after a part), `lost` (reads all and closes without a response),
    `half` (a FHIR server that refuses the fourth entry), or empty.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.fault: Fault | int = ""
        self.bodies: list[bytes] = []
        self.requests: list[dict[str, str]] = []
        self.retry_after = ""
        self.headers: dict[str, str] = {}
        """Sent with each response of status 200."""
        self._context = context
        self._released = threading.Event()
        self.port = 0
        self.come_back()

    def come_back(self) -> None:
        self._server = _Server(("127.0.0.1", self.port), _handler(self))
        self._server.socket = self._context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def go_down(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def close(self) -> None:
        self._released.set()
        self.go_down()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers["Content-Length"])
        self.requests.append({name.lower(): value for name, value in handler.headers.items()})
        if self.fault == "cut":
            handler.rfile.read(length // 2)
            handler.close_connection = True
            return
        body = handler.rfile.read(length)
        if self.fault == "hang":
            self._released.wait(10)
            return
        if isinstance(self.fault, int):
            _respond(handler, self.fault, b"{}", {"Retry-After": self.retry_after} if self.retry_after else {})
            return
        self.bodies.append(body)
        if self.fault == "lost":
            handler.close_connection = True
            return
        is_fhir = handler.headers["Content-Type"] == "application/fhir+json"
        answered = self._bundle(body) if is_fhir else b""
        _respond(handler, 200, b"<html>Welcome</html>" if self.fault == "garbage" else answered, self.headers)

    def _bundle(self, body: bytes) -> bytes:
        entries = json.loads(body)["entry"]
        statuses = [
            "422 Unprocessable" if self.fault == "half" and n == 3 else "201 Created" for n in range(len(entries))
        ]
        if self.fault == "half":
            kept = [entry for entry, status in zip(entries, statuses, strict=True) if status.startswith("201")]
            self.bodies[-1] = json.dumps({"entry": kept}).encode()
        answer = {
            "resourceType": "Bundle",
            "type": "batch-response",
            "entry": [{"response": {"status": status}} for status in statuses],
        }
        return json.dumps(answer).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what these tests are about."""


def _respond(handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def _handler(collector: Collector) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10

        def do_POST(self) -> None:
            collector.answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            """Write no log lines."""

    return Handler


@contextmanager
def collector(context: ssl.SSLContext) -> Iterator[Collector]:
    server = Collector(context)
    try:
        yield server
    finally:
        server.close()
