"""What the leak guard adds to a request for a page of 20 KB: `… guarding N`.

One process, no socket: the same view is called with the guard and without it by turns, sync and as a coroutine, and the
answer is a line of JSON.
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


def measure_guarding(*, batches: int) -> dict[str, dict[str, float]]:
    """Return by page the µs of a bare request, and those that the guard adds, sync and async."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.benchmarks.sessions.settings"}
    command = [sys.executable, "-m", "tests.benchmarks.leak_guard.middleware_cost", str(batches)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    """Measure, and print what came of it."""
    django.setup()
    told = {}
    for page in PAGES:
        view, guarded = _views(page)
        bare, beyond = _race(view, guarded, batches=int(sys.argv[1]))
        aview, aguarded = _coroutines(page)
        abare, abeyond = _arace(aview, aguarded, batches=int(sys.argv[1]))
        told[page] = {"bare": bare, "sync": beyond, "async_bare": abare, "async": abeyond}
    print(json.dumps(told))


def _content(page: str) -> bytes:
    text = "".join(_ROW.format(n=n) for n in range(1000))
    forms = _FORM * 20 if page == "tokens of forms" else ""
    return (forms + text).encode()[: KILOBYTES * 1024]


def _answer(page: str, content: bytes) -> Any:
    secrecy, http = import_module("django_phi_oidc._internal.request_secrets"), import_module("django.http")
    if page == "revealing":
        for n in range(10):
            secrecy.learn(f"value number {n}", "claim", place="body")
        secrecy.learn(_OPAQUE, "access_token")
    return http.HttpResponse(content)


def _guard(view: Any) -> Any:
    return import_module("django_phi_oidc.middleware").LeakageGuardMiddleware(view)


def _views(page: str) -> tuple[Any, Any]:
    content = _content(page)

    def view(request: Any) -> Any:
        return _answer(page, content)

    return view, _guard(view)


def _coroutines(page: str) -> tuple[Any, Any]:
    content = _content(page)

    async def view(request: Any) -> Any:
        return _answer(page, content)

    return view, _guard(view)


def _race(bare: Any, guarded: Any, *, batches: int) -> tuple[float, float]:
    return _settle([[_sync(view) for view in (bare, guarded)] for _ in range(batches + WARM_UP)])


def _arace(bare: Any, guarded: Any, *, batches: int) -> tuple[float, float]:
    async def race() -> list[list[float]]:
        return [[await _async(view) for view in (bare, guarded)] for _ in range(batches + WARM_UP)]

    return _settle(asyncio.run(race()))


def _settle(taken: list[list[float]]) -> tuple[float, float]:
    rounds = taken[WARM_UP:]
    return median(bare for bare, _ in rounds) * 1e6, median(guarded - bare for bare, guarded in rounds) * 1e6


def _requests() -> list[Any]:
    factory = import_module("django.test").RequestFactory()
    return [factory.get("/patients/", {"page": "2", "name": "Zoë"}, **_HEADERS) for _ in range(BATCH)]


def _sync(view: Any) -> float:
    requests = _requests()
    started = time.perf_counter()
    answers = [view(request) for request in requests]
    return _per_request(answers, started)


async def _async(view: Any) -> float:
    requests = _requests()
    started = time.perf_counter()
    answers = [await view(request) for request in requests]
    return _per_request(answers, started)


def _per_request(answers: list[Any], started: float) -> float:
    took = time.perf_counter() - started
    assert {(answer.status_code, len(answer.content)) for answer in answers} == {(200, KILOBYTES * 1024)}
    return took / BATCH


if __name__ == "__main__":
    main()
