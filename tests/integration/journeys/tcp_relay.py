"""A TCP relay to a server. It can go down and come back, stop forwarding, and records the traffic."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit


class Relay:
    """Relay data in both directions. `go_down` closes all connections and refuses new ones."""

    def __init__(self, url: str) -> None:
        self.passed = bytearray()
        """All data that has passed."""
        self.port = 0
        self._forwards = threading.Event()
        self._forwards.set()
        self._far = urlsplit(url)
        self._sockets: set[socket.socket] = set()
        self.come_back()

    @property
    def url(self) -> str:
        """The server's URL, with the port of the relay."""
        account, at, _ = self._far.netloc.rpartition("@")
        return self._far._replace(netloc=f"{account}{at}127.0.0.1:{self.port}").geturl()

    def come_back(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, args=(self._listener,))]
        self._threads[0].start()

    @contextmanager
    def hangs(self) -> Iterator[None]:
        """Forward nothing in the block: connections stay open, and new ones are accepted."""
        self._forwards.clear()
        try:
            yield
        finally:
            self._forwards.set()

    def go_down(self) -> None:
        """Close all connections. Safe to call twice."""
        self._forwards.set()
        if self._listener.fileno() < 0:
            return
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for connection in self._sockets:
            _shut_down(connection)
        for thread in self._threads[1:]:
            thread.join()
        for connection in self._sockets:
            connection.close()
        self._sockets.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = self._connect()
            self._sockets |= {near, far}
            for ends in ((near, far), (far, near)):
                thread = threading.Thread(target=self._pass_on, args=ends)
                self._threads.append(thread)
                thread.start()

    def _connect(self) -> socket.socket:
        """PostgreSQL's URLs can name the directory of a Unix socket instead of a host. Spec: libpq, connection URIs."""
        directory = parse_qs(self._far.query).get("host")
        if not directory:
            return socket.create_connection((self._far.hostname, self._far.port))
        far = socket.socket(socket.AF_UNIX)
        far.connect(f"{directory[0]}/.s.PGSQL.{self._far.port or 5432}")
        return far

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._forwards.wait()
                self.passed += data
                target.sendall(data)
        for connection in (source, target):
            _shut_down(connection)


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def relay_to(url: str) -> Iterator[Relay]:
    """Run a relay to the server at url. The url has a port or the directory of a PostgreSQL Unix socket."""
    relay = Relay(url)
    try:
        yield relay
    finally:
        relay.go_down()
