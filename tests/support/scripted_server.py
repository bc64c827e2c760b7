"""A server on a real socket that follows a script byte by byte, and counts its requests."""

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator

DRIP_SECONDS = 0.05


class Peer:
    """One accepted connection for the script."""

    def __init__(self, connection: socket.socket, server: "Server") -> None:
        self.connection = connection
        self.server = server

    def read(self) -> bytes | None:
        """Return the next request, or None when the client has disconnected."""
        received = b""
        while b"\r\n\r\n" not in received:
            part = self.connection.recv(65536)
            if not part:
                return None
            received += part
        head, _, body = received.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        while lengths and len(body) < int(lengths[0].partition(b":")[2]):
            body += self.connection.recv(65536)
        self.server.requests.append(head + b"\r\n\r\n" + body)
        return self.server.requests[-1]

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def drip(self, data: bytes) -> None:
        """Send a byte at a time, more often than any time-out of a single read, until the client disconnects."""
        for position in range(len(data)):
            self.send(data[position : position + 1])
            time.sleep(DRIP_SECONDS)

    def reset(self) -> None:
        """Make the next close send an RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


Script = Callable[[Peer], None]


class Server:
    """Runs script for each accepted connection in its own thread, and closes the connection after it."""

    def __init__(self, script: Script, *, tls: ssl.SSLContext | None) -> None:
        self.script = script
        self.tls = tls
        self.accepted = 0
        self.requests: list[bytes] = []
        self.closed = threading.Semaphore(0)
        """Released for each connection whose script has ended."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        return self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/"

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            # A duplicate handle, because the TLS wrapper detaches the original one.
            self._open.append(connection.dup())
            thread = threading.Thread(target=self._serve, args=(connection, self._open[-1]), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, handle: socket.socket) -> None:
        with handle, connection, contextlib.suppress(OSError):
            if self.tls is None:
                self.script(Peer(connection, self))
            else:
                with self.tls.wrap_socket(connection, server_side=True) as wrapped:
                    self.script(Peer(wrapped, self))
        self.closed.release()


@contextlib.contextmanager
def serving(script: Script, *, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Run a server for the length of the block."""
    server = Server(script, tls=tls)
    try:
        yield server
    finally:
        server.stop()


def reply(body: bytes = b"{}", *headers: str, status: str = "200 OK") -> bytes:
    """Return a complete response with its length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def answering(*answers: bytes) -> Script:
    """Return a script that keeps the connection and sends the answers in turn, repeating the last one."""

    def script(peer: Peer) -> None:
        position = 0
        while peer.read() is not None:
            peer.send(answers[min(position, len(answers) - 1)])
            position += 1

    return script


def once(*parts: bytes) -> Script:
    """Return a script that sends the parts to the first request and closes."""

    def script(peer: Peer) -> None:
        peer.read()
        for part in parts:
            peer.send(part)

    return script


def chunked(size: int, *headers: str) -> bytes:
    """Return a complete response in chunks."""
    head = "\r\n".join(["HTTP/1.1 200 OK", "Transfer-Encoding: chunked", *headers, "", ""]).encode()
    whole = b"%x\r\n%b\r\n" % (65536, b" " * 65536) * (size // 65536)
    rest = b"%x\r\n%b\r\n" % (size % 65536, b" " * (size % 65536)) if size % 65536 else b""
    return head + whole + rest + b"0\r\n\r\n"


def silent(peer: Peer) -> None:
    """Read a request and send nothing until the client disconnects."""
    peer.read()
    peer.connection.recv(1)
