"""The middleware stacks, and the view behind them, which reads the user."""

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from statistics import median
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib import auth
from django.core.handlers.base import BaseHandler
from django.core.management import call_command
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.test import AsyncRequestFactory, RequestFactory, override_settings
from django.urls import include, path

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.request_context import SESSION_KEY
from django_phi_oidc.sessions.activity import TIMES_KEY

BASE = (
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
)
STACKS: Mapping[str, tuple[str, ...]] = {
    "bare": (),
    "phi_oidc": ("django_phi_oidc.middleware.RevocationMiddleware",),
    "mozilla": ("mozilla_django_oidc.middleware.SessionRefresh",),
    "auditlog": ("auditlog.middleware.AuditlogMiddleware",),
}
BATCH = 20
WARM_UP = 5
Run = Callable[[], float]
"""Makes BATCH requests, and returns the seconds per request."""


def who(request: HttpRequest) -> HttpResponse:
    """Return the primary key of the user."""
    return HttpResponse(str(request.user.pk))


async def awho(request: HttpRequest) -> HttpResponse:
    """Return the primary key of the user."""
    return HttpResponse(str((await request.auser()).pk))


urlpatterns = [path("who/", who), path("awho/", awho), path("oidc/", include("django_phi_oidc.urls"))]


def measure(stacks: Sequence[str], *, batches: int) -> dict[str, dict[str, float]]:
    """Return for each stack the µs per request (in addition to bare for the others) and the queries, sync and async."""
    call_command("migrate", verbosity=0)
    now = clock.now()
    # Nothing becomes due during the measurement.
    with clock.override_clock(lambda: now):
        return _measure(stacks, key=_sign_in(), batches=batches)


def _measure(stacks: Sequence[str], *, key: str, batches: int) -> dict[str, dict[str, float]]:
    results: dict[str, dict[str, float]] = {stack: {} for stack in stacks}
    for kind, create_run in (("sync", _sync), ("async", _async)):
        runs = {stack: create_run(STACKS[stack], key) for stack in stacks}
        taken = _race(runs, batches=batches)
        for stack, times in taken.items():
            added = [total - bare for total, bare in zip(times, taken["bare"], strict=True)]
            results[stack][kind] = median(times if stack == "bare" else added) * 1e6
            results[stack][f"{kind}_queries"] = _queries(runs[stack])
    return results


def _race(runs: Mapping[str, Run], *, batches: int) -> dict[str, list[float]]:
    """Run the stacks in turns, and start each round with another one."""
    taken: dict[str, list[float]] = {stack: [] for stack in runs}
    names = list(runs)
    for number in range(-WARM_UP, batches):
        shift = number % len(names)
        for stack in (*names[shift:], *names[:shift]):
            took = runs[stack]()
            if number >= 0:
                taken[stack].append(took)
    return taken


def _sign_in() -> str:
    """Return the key of a session that all stacks accept as signed in."""
    user = auth.get_user_model()._default_manager.create_user(username="amina")
    store = import_module(settings.SESSION_ENGINE).SessionStore()
    now = clock.now().timestamp()
    store.update(
        {
            auth.SESSION_KEY: str(user.pk),
            auth.BACKEND_SESSION_KEY: settings.AUTHENTICATION_BACKENDS[0],
            auth.HASH_SESSION_KEY: user.get_session_auth_hash(),
            SESSION_KEY: str(uuid.uuid4()),
            TIMES_KEY: [now, now, now],
            "oidc_id_token_expiration": now + 24 * 60 * 60,
        }
    )
    store.save()
    return str(store.session_key)


def _sync(middleware: tuple[str, ...], key: str) -> Run:
    handler = _handler(middleware, is_async=False)

    def run() -> float:
        requests = [_with_cookie(RequestFactory().get("/who/"), key) for _ in range(BATCH)]
        started = time.perf_counter()
        responses = [handler.get_response(request) for request in requests]
        return _per_request(responses, started)

    return run


def _async(middleware: tuple[str, ...], key: str) -> Run:
    handler = _handler(middleware, is_async=True)

    async def run() -> float:
        requests = [_with_cookie(AsyncRequestFactory().get("/awho/"), key) for _ in range(BATCH)]
        started = time.perf_counter()
        responses = [await handler.get_response_async(request) for request in requests]
        return _per_request(responses, started)

    return lambda: asyncio.run(run())


def _per_request(responses: list[HttpResponse], started: float) -> float:
    took = time.perf_counter() - started
    assert {(response.status_code, response.content) for response in responses} == {(200, b"1")}, responses[0]
    return took / BATCH


def _handler(middleware: tuple[str, ...], *, is_async: bool) -> Any:
    handler = BaseHandler()
    with override_settings(MIDDLEWARE=[*BASE, *middleware]):
        handler.load_middleware(is_async=is_async)
    return handler


def _with_cookie(request: Any, key: str) -> Any:
    request.COOKIES[settings.SESSION_COOKIE_NAME] = key
    return request


def _queries(run: Run) -> float:
    """Return the queries per request, in this thread or in the thread that a coroutine uses for them."""
    query_count = 0

    def count(execute: Any, *call: Any) -> Any:
        nonlocal query_count
        query_count += 1
        return execute(*call)

    def wrap() -> None:
        for connection in connections.all():
            connection.execute_wrappers.append(count)

    def unwrap() -> None:
        for connection in connections.all():
            connection.execute_wrappers.remove(count)

    wrap()
    asyncio.run(sync_to_async(wrap)())
    run()
    unwrap()
    asyncio.run(sync_to_async(unwrap)())
    return query_count / BATCH
