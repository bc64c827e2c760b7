"""A portal in a separate process: `python -m tests.support.portal_process` prints its port and serves until killed.

TEST_ASGI=1: by uvicorn instead of under WSGI.
"""

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import uvicorn
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application

from tests.support.celery_app import app
from tests.support.databases import child_environment


class Server(ThreadingMixIn, WSGIServer):
    """A server with a thread per request and a backlog for many simultaneous requests."""

    daemon_threads = True
    request_queue_size = 256


class ThreadPoolServer(Server):
    """A server with a fixed number of threads (TEST_THREADS). Other requests wait."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.pool = ThreadPoolExecutor(int(os.environ["TEST_THREADS"]))

    def process_request(self, request: Any, client_address: Any) -> None:
        self.pool.submit(self.process_request_thread, request, client_address)


class Quiet(WSGIRequestHandler):
    """A request handler that logs nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@contextmanager
def portal_process(phi_oidc: Mapping[str, Any], *, port: int = 0, **environment: str) -> Iterator[str]:
    """Run a portal with the databases of the running test, and yield its address.

    environment: variables for `portal_process_settings`; TEST_LOG_FILE, the log file; TEST_PID_FILE, a file for the id
    of the process; TEST_THREADS, the number of threads (default: one per request).
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.support.portal_process", str(port)],
        env={
            **child_environment(os.environ, settings.DATABASES),
            "DJANGO_SETTINGS_MODULE": "tests.support.portal_process_settings",
            "TEST_PHI_OIDC": json.dumps(phi_oidc),
            **environment,
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(child.stdout.readline())}"
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def main() -> None:
    """Serve until killed."""
    if "TEST_LOG_FILE" in os.environ:
        logging.basicConfig(filename=os.environ["TEST_LOG_FILE"], level=logging.DEBUG)
    if "TEST_PID_FILE" in os.environ:
        Path(os.environ["TEST_PID_FILE"]).write_text(str(os.getpid()))
    app.set_default()
    if os.environ.get("TEST_ASGI") == "1":
        serve_asgi()
    server_class = ThreadPoolServer if "TEST_THREADS" in os.environ else Server
    server = make_server("127.0.0.1", int(sys.argv[1]), get_wsgi_application(), server_class, Quiet)
    print(server.server_port, flush=True)
    server.serve_forever()


def serve_asgi() -> None:
    """Serve until killed."""
    config = uvicorn.Config(get_asgi_application(), lifespan="off", log_level="critical")
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
        print(listener.getsockname()[1], flush=True)
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
