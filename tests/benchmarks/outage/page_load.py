"""Times of the pages of a portal under gunicorn, 2 workers with 4 threads each, while its provider hangs."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from statistics import quantiles

from tests.benchmarks.sign_in.measurement import _database as temporary_database
from tests.support.scripted_server import Peer, Server, reply, serving

WORKERS, THREADS = 2, 4
PAGES = {"home": "/home/", "health": "/oidc/health/", "break-glass": "/oidc/local-login/"}
PAGES_PER_SECOND, SIGN_INS_PER_SECOND = 12, 3
SIGN_IN = "/oidc/authenticate/"
START_SECONDS, REQUEST_SECONDS = 60, 60


@dataclass(slots=True)
class PageTimes:
    """Times of responses, in seconds, by page."""

    quiet: dict[str, list[float]] = field(default_factory=lambda: {page: [] for page in PAGES})
    outage: dict[str, list[float]] = field(default_factory=lambda: {page: [] for page in PAGES})
    sign_ins: Counter[int] = field(default_factory=Counter)
    """Responses to sign-ins during the outage, by status."""


def percentile_95(seconds: list[float]) -> float:
    """Return the 95th percentile of at least two times."""
    return quantiles(seconds, n=20, method="inclusive")[-1]


def measure_outage(*, url: str, seconds: float, log: Callable[[str], None]) -> PageTimes:
    """Return the times of the pages without sign-ins, then with sign-ins at a provider that hangs.

    url: of the PostgreSQL server. seconds: length of each of the two parts.
    """
    times = PageTimes()
    with serving(_answer_discovery_only) as provider, _portal(url, provider) as address:
        for path in (*PAGES.values(), *PAGES.values()):
            _request(address, path)
        _load(address, seconds, times.quiet, sign_ins=None)
        log(f"{seconds:.0f} s without sign-ins.")
        _load(address, seconds, times.outage, sign_ins=times.sign_ins)
        log(f"{seconds:.0f} s with {SIGN_INS_PER_SECOND} sign-ins a second, {dict(times.sign_ins)}.")
    return times


def _answer_discovery_only(peer: Peer) -> None:
    """Answer requests for the metadata, and nothing to a pushed authorization request."""
    while request := peer.read():
        if not request.startswith(b"GET /.well-known/openid-configuration "):
            peer.connection.recv(1)
            return
        issuer = f"http://127.0.0.1:{peer.server.port}"
        names = {"authorization": "authorize", "token": "token", "revocation": "revoke"}
        metadata = {
            "issuer": issuer,
            **{f"{name}_endpoint": f"{issuer}/{path}" for name, path in names.items()},
            "pushed_authorization_request_endpoint": f"{issuer}/par",
            "jwks_uri": f"{issuer}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
        }
        peer.send(reply(json.dumps(metadata).encode(), "Content-Type: application/json", "Cache-Control: max-age=3600"))


@contextmanager
def _portal(url: str, provider: Server) -> Iterator[str]:
    """Run gunicorn with a database of its own, and yield its address."""
    with temporary_database(url) as database, socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.benchmarks.outage.settings",
            "BENCH_ISSUER": f"http://127.0.0.1:{provider.port}",
            "BENCH_DATABASE_URL": url,
            "BENCH_DATABASE_NAME": database,
        }
        migrate = [sys.executable, "-m", "django", "migrate", "--verbosity", "0"]
        subprocess.run(migrate, env=environment, check=True, timeout=START_SECONDS)
        command = [sys.executable, "-m", "gunicorn", "--bind", f"fd://{listener.fileno()}", "--log-level", "warning"]
        command += ["--workers", str(WORKERS), "--threads", str(THREADS), "django.core.wsgi:get_wsgi_application()"]
        with subprocess.Popen(command, env=environment, pass_fds=[listener.fileno()]) as gunicorn:
            try:
                yield f"127.0.0.1:{listener.getsockname()[1]}"
            finally:
                gunicorn.terminate()
                gunicorn.wait(timeout=START_SECONDS)


def _load(address: str, seconds: float, times: Mapping[str, list[float]], *, sign_ins: Counter[int] | None) -> None:
    """Request the pages in turn, and start sign-ins unless None, each at its rate, whether or not others have ended."""
    threads: list[threading.Thread] = []
    lock = threading.Lock()

    def request_page(page: str) -> None:
        status, took = _request(address, PAGES[page])
        assert status == 200, (page, status)
        with lock:
            times[page].append(took)

    def start_sign_in() -> None:
        status, _ = _request(address, SIGN_IN)
        with lock:
            assert sign_ins is not None
            sign_ins[status] += 1

    def start(function: Callable[..., None], *arguments: str) -> None:
        threads.append(threading.Thread(target=function, args=arguments))
        threads[-1].start()

    started_at = time.monotonic()
    names = list(PAGES)
    for number in range(int(seconds * PAGES_PER_SECOND)):
        time.sleep(max(0.0, started_at + number / PAGES_PER_SECOND - time.monotonic()))
        start(request_page, names[number % len(names)])
        if sign_ins is not None and number % (PAGES_PER_SECOND // SIGN_INS_PER_SECOND) == 0:
            start(start_sign_in)
    for thread in threads:
        thread.join()


def _request(address: str, path: str) -> tuple[int, float]:
    """Return the status and the time until the body was read."""
    started_at = time.monotonic()
    connection = HTTPConnection(address, timeout=REQUEST_SECONDS)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        response.read()
        return response.status, time.monotonic() - started_at
    finally:
        connection.close()
