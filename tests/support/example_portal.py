"""The example's portal over TLS, in this process and on the databases of the running test."""

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
    """Serves `application`, which each test makes anew, since it keeps its middleware from the time it was made."""

    application: Any = None

    def __init__(self, certificate: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.server = make_server("127.0.0.1", 0, self._serve, Server, Quiet)
        self.server.base_environ["HTTPS"] = "on"
        # The handshake is the business of the request's own thread: a browser opens connections that it may never use.
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self.server.server_port}"

    def _serve(self, environ: Any, start_response: Any) -> Any:
        return self.application(environ, start_response)


@contextmanager
def tls_portal(certificate: Path) -> Iterator[TLSPortal]:
    """Serve until the block ends. certificate: a PEM file that holds the key as well."""
    portal = TLSPortal(certificate)
    thread = threading.Thread(target=portal.server.serve_forever)
    thread.start()
    try:
        yield portal
    finally:
        portal.server.shutdown()
        thread.join()
        portal.server.server_close()
