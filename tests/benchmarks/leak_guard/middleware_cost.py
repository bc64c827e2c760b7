"""Overhead of the leak guard for a page of 20 KB: `… middleware_cost N`.

One process without sockets: a view is called in turns with and without the guard, sync and async. The result is a line
of JSON.
"""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import time
from base64 import b64encode
from importlib import import_module
from statistics import median
from typing import Any

import django

KILOBYTES = 20
PAGES = ("plain", "tokens of forms", "revealing")
BATCH = 20
WARM_UP = 5
_OPAQUE = b64encode(b"".join(hashlib.sha256(bytes([n])).digest() for n in range(20))).decode()
_ROW = (
    '<tr><td class="name">Zoë Lindqvist</td><td><a href="/patients/{n}/">chart {n}</a></td><td>Tulegatan 4</td></tr>\n'
)
_FORM = '<form method="post"><input type="hidden" name="csrf_token" value="uX3kQ9Zr0yWm2VbT5n8Hc1LsDe7Ga4Pf"></form>\n'
_HEADERS = {
    "HTTP_REFERER": "https://portal.example/patients/?page=2",
    "HTTP_COOKIE": f"sessionid={'k' * 32}; theme=dark",
}


def measure_leak_guard(*, batches: int) -> dict[str, dict[str, float]]:
    """Return for each page the µs of a bare request, and those added by the guard, sync and async."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.benchmarks.sessions.settings"}
    command = [sys.executable, "-m", "tests.benchmarks.leak_guard.middleware_cost", str(batches)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    """Measure, and print the result."""
    django.setup()
    results = {}
    for page in PAGES:
        view, guarded = _views(page)
        bare, added = _race(view, guarded, batches=int(sys.argv[1]))
        aview, aguarded = _coroutines(page)
        abare, async_added = _arace(aview, aguarded, batches=int(sys.argv[1]))
        results[page] = {"bare": bare, "sync": added, "async_bare": abare, "async": async_added}
    print(json.dumps(results))


def _content(page: str) -> bytes:
    text = "".join(_ROW.format(n=n) for n in range(1000))
    forms = _FORM * 20 if page == "tokens of forms" else ""
    return (forms + text).encode()[: KILOBYTES * 1024]


def _create_response(page: str, content: bytes) -> Any:
    request_secrets, http = import_module("django_phi_oidc._internal.request_secrets"), import_module("django.http")
    if page == "revealing":
        for n in range(10):
            request_secrets.register_secret(f"value number {n}", "claim", location="body")
        request_secrets.register_secret(_OPAQUE, "access_token")
    return http.HttpResponse(content)


def _guard(view: Any) -> Any:
    return import_module("django_phi_oidc.middleware").LeakageGuardMiddleware(view)


def _views(page: str) -> tuple[Any, Any]:
    content = _content(page)

    def view(request: Any) -> Any:
        return _create_response(page, content)

    return view, _guard(view)


def _coroutines(page: str) -> tuple[Any, Any]:
    content = _content(page)

    async def view(request: Any) -> Any:
        return _create_response(page, content)

    return view, _guard(view)


def _race(bare: Any, guarded: Any, *, batches: int) -> tuple[float, float]:
    return _summarize([[_sync(view) for view in (bare, guarded)] for _ in range(batches + WARM_UP)])


def _arace(bare: Any, guarded: Any, *, batches: int) -> tuple[float, float]:
    async def race() -> list[list[float]]:
        return [[await _async(view) for view in (bare, guarded)] for _ in range(batches + WARM_UP)]

    return _summarize(asyncio.run(race()))


def _summarize(taken: list[list[float]]) -> tuple[float, float]:
    rounds = taken[WARM_UP:]
    return median(bare for bare, _ in rounds) * 1e6, median(guarded - bare for bare, guarded in rounds) * 1e6


def _requests() -> list[Any]:
    factory = import_module("django.test").RequestFactory()
    return [factory.get("/patients/", {"page": "2", "name": "Zoë"}, **_HEADERS) for _ in range(BATCH)]


def _sync(view: Any) -> float:
    requests = _requests()
    started = time.perf_counter()
    responses = [view(request) for request in requests]
    return _per_request(responses, started)


async def _async(view: Any) -> float:
    requests = _requests()
    started = time.perf_counter()
    responses = [await view(request) for request in requests]
    return _per_request(responses, started)


def _per_request(responses: list[Any], started: float) -> float:
    took = time.perf_counter() - started
    assert {(response.status_code, len(response.content)) for response in responses} == {(200, KILOBYTES * 1024)}
    return took / BATCH


if __name__ == "__main__":
    main()
