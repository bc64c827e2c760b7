"""The stacks of middleware, and the view behind them, which reads who the user is."""

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
    "ours": ("django_phi_oidc.middleware.RevocationMiddleware",),
    "mozilla": ("mozilla_django_oidc.middleware.SessionRefresh",),
    "auditlog": ("auditlog.middleware.AuditlogMiddleware",),
}
BATCH = 20
WARM_UP = 5
Ask = Callable[[], float]
"""Makes BATCH requests, and returns the seconds that one took."""


def who(request: HttpRequest) -> HttpResponse:
    """Answer the user's primary key."""
    return HttpResponse(str(request.user.pk))


async def awho(request: HttpRequest) -> HttpResponse:
    """Answer the user's primary key."""
    return HttpResponse(str((await request.auser()).pk))


urlpatterns = [path("who/", who), path("awho/", awho), path("oidc/", include("django_phi_oidc.urls"))]


def measure(stacks: Sequence[str], *, batches: int) -> dict[str, dict[str, float]]:
    """Return by stack: µs of a request (bare), or beyond a bare one (the others), and queries, sync and async."""
    call_command("migrate", verbosity=0)
    key = _sign_in()
    results: dict[str, dict[str, float]] = {stack: {} for stack in stacks}
    for kind, asking in (("sync", _sync), ("async", _async)):
        asks = {stack: asking(STACKS[stack], key) for stack in stacks}
        taken = _race(asks, batches=batches)
        for stack, times in taken.items():
            beyond = [mine - bare for mine, bare in zip(times, taken["bare"], strict=True)]
            results[stack][kind] = median(times if stack == "bare" else beyond) * 1e6
            results[stack][f"{kind}_queries"] = _queries(asks[stack])
    return results


def _race(asks: Mapping[str, Ask], *, batches: int) -> dict[str, list[float]]:
    """Let each stack have its turn, each round beginning with another one."""
    taken: dict[str, list[float]] = {stack: [] for stack in asks}
    names = list(asks)
    for number in range(-WARM_UP, batches):
        shift = number % len(names)
        for stack in (*names[shift:], *names[:shift]):
            took = asks[stack]()
            if number >= 0:
                taken[stack].append(took)
    return taken


def _sign_in() -> str:
    """Return the key of a session of somebody who is signed in, as all stacks understand it."""
    user = auth.get_user_model()._default_manager.create_user(username="amina")
    store = import_module(settings.SESSION_ENGINE).SessionStore()
    soon = clock.now().timestamp() + 120
    store.update(
        {
            auth.SESSION_KEY: str(user.pk),
            auth.BACKEND_SESSION_KEY: settings.AUTHENTICATION_BACKENDS[0],
            auth.HASH_SESSION_KEY: user.get_session_auth_hash(),
            SESSION_KEY: str(uuid.uuid4()),
            # So that nothing falls due while this runs.
            TIMES_KEY: [soon, soon, soon],
            "oidc_id_token_expiration": soon + 24 * 60 * 60,
        }
    )
    store.save()
    return str(store.session_key)


def _sync(middleware: tuple[str, ...], key: str) -> Ask:
    handler = _handler(middleware, is_async=False)

    def ask() -> float:
        requests = [_with_cookie(RequestFactory().get("/who/"), key) for _ in range(BATCH)]
        started = time.perf_counter()
        answers = [handler.get_response(request) for request in requests]
        return _per_request(answers, started)

    return ask


def _async(middleware: tuple[str, ...], key: str) -> Ask:
    handler = _handler(middleware, is_async=True)

    async def ask() -> float:
        requests = [_with_cookie(AsyncRequestFactory().get("/awho/"), key) for _ in range(BATCH)]
        started = time.perf_counter()
        answers = [await handler.get_response_async(request) for request in requests]
        return _per_request(answers, started)

    return lambda: asyncio.run(ask())


def _per_request(answers: list[HttpResponse], started: float) -> float:
    took = time.perf_counter() - started
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, b"1")}, answers[0]
    return took / BATCH


def _handler(middleware: tuple[str, ...], *, is_async: bool) -> Any:
    handler = BaseHandler()
    with override_settings(MIDDLEWARE=[*BASE, *middleware]):
        handler.load_middleware(is_async=is_async)
    return handler


def _with_cookie(request: Any, key: str) -> Any:
    request.COOKIES[settings.SESSION_COOKIE_NAME] = key
    return request


def _queries(ask: Ask) -> float:
    """Return how many a request makes: in this thread, or in that to which a coroutine goes with them."""
    made = 0

    def count(execute: Any, *call: Any) -> Any:
        nonlocal made
        made += 1
        return execute(*call)

    def wrap() -> None:
        for connection in connections.all():
            connection.execute_wrappers.append(count)

    def unwrap() -> None:
        for connection in connections.all():
            connection.execute_wrappers.remove(count)

    wrap()
    asyncio.run(sync_to_async(wrap)())
    ask()
    unwrap()
    asyncio.run(sync_to_async(unwrap)())
    return made / BATCH
