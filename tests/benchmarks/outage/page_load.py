"""Times of the pages of a portal under gunicorn, 2 workers with 4 threads each, while its provider is slow."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import quantiles

from tests.benchmarks.outage.slow_provider import ENDPOINTS, Endpoint, SlowProvider, create_stranger
from tests.benchmarks.sign_in.measurement import _database as temporary_database
from tests.support.http_browser import Browser, PortalResponse
from tests.support.scripted_server import Server, serving

WORKERS, THREADS = 2, 4
PAGES = {"home": "/home/", "health": "/oidc/health/", "break-glass": "/oidc/local-login/"}
PAGES_PER_SECOND = 12
STRANGERS_PER_SECOND = 8
DELAYS = (0.3, 0.9, 2.0, 30.0)
"""Seconds. The portal waits for a single call for at most 8."""
START_SECONDS = 60


@dataclass(slots=True, kw_only=True)
class PageTimes:
    """Times of responses, in seconds, by page, with one endpoint of the provider slow."""

    endpoint: str
    delay_seconds: float
    quiet: dict[str, list[float]] = field(default_factory=lambda: {page: [] for page in PAGES})
    slow: dict[str, list[float]] = field(default_factory=lambda: {page: [] for page in PAGES})
    strangers: Counter[int] = field(default_factory=Counter)
    """Responses to requests that call the slow endpoint, by status."""


def percentile_95(seconds: list[float]) -> float:
    """Return the 95th percentile of at least two times."""
    return quantiles(seconds, n=20, method="inclusive")[-1]


def measure_outage(
    *,
    url: str,
    seconds: float,
    log: Callable[[str], None],
    endpoints: Sequence[Endpoint] = ENDPOINTS,
    delays: Sequence[float] = DELAYS,
) -> list[PageTimes]:
    """Return the times of the pages, for each endpoint and delay: without requests of strangers, then with them.

    url: of the PostgreSQL server. seconds: length of each of the two parts.
    """
    measured = []
    for endpoint in endpoints:
        for delay in delays:
            times = _measure_slow_endpoint(url, SlowProvider(endpoint=endpoint, delay_seconds=delay), seconds=seconds)
            log(f"{endpoint} {delay} s: {seconds:.0f} s quiet, {seconds:.0f} s slow, {dict(times.strangers)}.")
            measured.append(times)
    return measured


def _measure_slow_endpoint(url: str, provider: SlowProvider, *, seconds: float) -> PageTimes:
    times = PageTimes(endpoint=provider.endpoint, delay_seconds=provider.delay_seconds)
    with serving(provider.answer) as server, _portal(url, server) as base_url:
        issuer = f"http://127.0.0.1:{server.port}"
        stranger = create_stranger(provider, base_url, issuer=issuer, requests=int(seconds * STRANGERS_PER_SECOND))
        # Some of these pages are the first of their worker.
        for path in (*PAGES.values(), *PAGES.values()):
            Browser(base_url).get(path)
        _load(base_url, seconds, times.quiet, stranger=None, statuses=times.strangers)
        provider.is_slow.set()
        _load(base_url, seconds, times.slow, stranger=stranger, statuses=times.strangers)
    return times


@contextmanager
def _portal(url: str, provider: Server) -> Iterator[str]:
    """Run gunicorn with a database of its own, and yield its URL."""
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
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                gunicorn.terminate()
                gunicorn.wait(timeout=START_SECONDS)


def _load(
    base_url: str,
    seconds: float,
    times: Mapping[str, list[float]],
    *,
    stranger: Callable[[], PortalResponse] | None,
    statuses: Counter[int],
) -> None:
    """Request the pages in turn, and send the requests of strangers unless None, each at its rate.

    Nothing waits for the end of another request.
    """
    threads: list[threading.Thread] = []
    lock = threading.Lock()

    def request_page(page: str) -> None:
        started_at = time.monotonic()
        response = Browser(base_url).get(PAGES[page])
        took = time.monotonic() - started_at
        assert response.status == 200, (page, response)
        with lock:
            times[page].append(took)

    def send_as_stranger() -> None:
        assert stranger is not None
        response = stranger()
        with lock:
            statuses[response.status] += 1

    names = list(PAGES)
    schedule: list[tuple[float, Callable[[], None]]] = []
    for number in range(int(seconds * PAGES_PER_SECOND)):
        page = names[number % len(names)]
        schedule.append((number / PAGES_PER_SECOND, lambda page=page: request_page(page)))
    if stranger is not None:
        for number in range(int(seconds * STRANGERS_PER_SECOND)):
            schedule.append((number / STRANGERS_PER_SECOND, send_as_stranger))
    schedule.sort(key=lambda item: item[0])
    started_at = time.monotonic()
    for starts_after, send in schedule:
        time.sleep(max(0.0, started_at + starts_after - time.monotonic()))
        threads.append(threading.Thread(target=send))
        threads[-1].start()
    for thread in threads:
        thread.join()
