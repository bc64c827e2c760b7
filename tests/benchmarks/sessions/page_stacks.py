"""The page that the stacks serve, each request half a minute after the last one, and its cost."""

import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import import_module
from statistics import median
from typing import Any

from django.conf import settings
from django.contrib import auth
from django.contrib.auth.decorators import login_required
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.test import RequestFactory, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import include, path

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.request_context import SESSION_KEY
from django_phi_oidc.sessions.activity import TIMES_KEY, create_times_entry
from django_phi_oidc.sessions.digests import sha256_hex
from django_phi_oidc.sessions.models import OIDCSession
from tests.benchmarks.sessions.middleware_stacks import STACKS
from tests.benchmarks.sign_in.portal import commits_of, statements_of

BASE = (
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
)
BACKENDS = {
    "bare": "django.contrib.auth.backends.ModelBackend",
    "phi_oidc": "django_phi_oidc.backends.OIDCAuthenticationBackend",
    "mozilla": "mozilla_django_oidc.auth.OIDCAuthenticationBackend",
}
PAUSE = timedelta(seconds=30)
PAGES = 20
"""The pages of a session, which start half a minute after the sign-in."""
WARM_UP = 5
TEMPLATE = """<!doctype html><html lang="en"><head><title>Appointments</title></head><body><h1>{{ user.username }}</h1>
<table>{% for row in rows %}<tr><td>{{ row.0 }}</td><td>{{ row.1 }}</td></tr>{% endfor %}</table></body></html>"""


@cache
def compile_template() -> Any:
    """Return the template, which Django's cached loader would compile once, too."""
    return engines["django"].from_string(TEMPLATE)


@login_required
def show_page(request: HttpRequest) -> HttpResponse:
    """Return a page of ten rows with the name of the user."""
    rows = [(number, "Cardiology") for number in range(10)]
    return HttpResponse(compile_template().render({"user": request.user, "rows": rows}, request))


urlpatterns = [path("page/", show_page), path("oidc/", include("django_phi_oidc.urls"))]


class Stack:
    """A middleware stack with its measured costs, in seconds per page."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.walls: list[float] = []
        self.cpus: list[float] = []
        self._now = datetime.now(UTC)
        with override_settings(MIDDLEWARE=[*BASE, *STACKS[name]]):
            self._handler: Any = WSGIHandler()
        self.user = auth.get_user_model()._default_manager.create_user(username=f"amina-{name}")

    def visit(self) -> None:
        """Request the pages of a new session, and add the costs."""
        wall, cpu = self._request_pages(self._sign_in())
        self.walls.append(wall)
        self.cpus.append(cpu)

    def count(self) -> dict[str, float]:
        """Return the statements, the durable commits and the bytes of WAL per page."""
        key = self._sign_in()
        began = _read_wal_position()
        self._request_pages(key)
        wal = _read_wal_position() - began
        key = self._sign_in()
        with ExitStack() as stack:
            captured = [stack.enter_context(CaptureQueriesContext(connection)) for connection in connections.all()]
            self._request_pages(key)
        logs = [[query["sql"] for query in queries] for queries in captured]
        statements, commits = sum(len(statements_of(log)) for log in logs), sum(commits_of(log) for log in logs)
        return {"statements": statements / PAGES, "commits": commits / PAGES, "wal": wal / PAGES}

    def _request_pages(self, key: str) -> tuple[float, float]:
        """Return the wall and the CPU seconds per page."""
        environ = RequestFactory(headers={"Cookie": f"{settings.SESSION_COOKIE_NAME}={key}"}).get("/page/").environ
        wall = cpu = 0.0
        with clock.override_clock(lambda: self._now):
            for _ in range(PAGES):
                self._now += PAUSE
                request = {**environ}
                started, cpu_started = time.perf_counter(), time.process_time()
                response = self._handler(request, _start_response)
                body = b"".join(response)
                response.close()
                wall, cpu = wall + time.perf_counter() - started, cpu + time.process_time() - cpu_started
                assert response.status_code == 200, (self.name, response)
                assert self.user.get_username().encode() in body, (self.name, body)
        return wall / PAGES, cpu / PAGES

    def _sign_in(self) -> str:
        """Return the key of a new session."""
        store, session_id = import_module(settings.SESSION_ENGINE).SessionStore(), uuid.uuid4()
        store.update(
            {
                auth.SESSION_KEY: str(self.user.pk),
                auth.BACKEND_SESSION_KEY: BACKENDS[self.name],
                auth.HASH_SESSION_KEY: self.user.get_session_auth_hash(),
                "oidc_id_token_expiration": time.time() + 24 * 60 * 60,
            }
        )
        if self.name == "phi_oidc":
            store.update({SESSION_KEY: str(session_id), TIMES_KEY: create_times_entry(self._now)})
        store.save()
        key = str(store.session_key)
        if self.name == "phi_oidc":
            OIDCSession.objects.create(
                id=session_id,
                user=self.user,
                provider="default",
                issuer="https://op.example.test",
                session_key=key,
                session_key_digest=sha256_hex(key),
                started_at=self._now,
                last_seen_at=self._now,
            )
        return key


def measure(names: Sequence[str], *, rounds: int) -> dict[str, dict[str, float]]:
    """Return the costs of a page in each stack: `wall` and `cpu` in µs, `statements`, `commits` and `wal` in bytes."""
    call_command("migrate", verbosity=0)
    stacks = [Stack(name) for name in names]
    for number in range(-WARM_UP, rounds):
        shift = number % len(stacks)
        for stack in (*stacks[shift:], *stacks[:shift]):
            stack.visit()
    results = {}
    for stack in stacks:
        times = {"wall": median(stack.walls[WARM_UP:]) * 1e6, "cpu": median(stack.cpus[WARM_UP:]) * 1e6}
        results[stack.name] = times | stack.count()
    return results


def _start_response(status: str, headers: list[tuple[str, str]]) -> None:
    """Send nothing."""


def _read_wal_position() -> int:
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        return int(cursor.fetchone()[0])
