"""Serves the example portal over TLS in this process, with the databases of the running test."""

import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import make_server

from tests.support.portal_process import Quiet, Server

EXAMPLE = Path(__file__).resolve().parents[2] / "example_project"
if str(EXAMPLE) not in sys.path:
    sys.path.append(str(EXAMPLE))


class TLSPortal:
    """Serves `application`. Each test creates a new one, because an application keeps its middleware."""

    application: Any = None

    def __init__(self, certificate: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.server = make_server("127.0.0.1", 0, self._serve, Server, Quiet)
        self.server.base_environ["HTTPS"] = "on"
        # The handshake is made in the thread of the request, because browsers open connections that they may not use.
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self.server.server_port}"

    def _serve(self, environ: Any, start_response: Any) -> Any:
        return self.application(environ, start_response)


@contextmanager
def tls_portal(certificate: Path) -> Iterator[TLSPortal]:
    """Serve for the duration of the block. certificate: a PEM file with certificate and key."""
    portal = TLSPortal(certificate)
    thread = threading.Thread(target=portal.server.serve_forever)
    thread.start()
    try:
        yield portal
    finally:
        portal.server.shutdown()
        thread.join()
        portal.server.server_close()
