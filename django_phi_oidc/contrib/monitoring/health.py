"""A health check for load balancers, in the format of django-health-check."""

import threading
import time
from collections.abc import Callable

from django.db import DEFAULT_DB_ALIAS, DatabaseError, InterfaceError, connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.decorators import method_decorator
from django.views.generic import View

from ..._internal import clock
from ..._internal.view_decorators import public_view
from ...access.responses import set_private_headers
from ...audit.connection_deadline import connection_deadline
from ...audit.router import AUDIT_ALIAS
from ...audit.storage import is_writable
from ...crypto import keyring
from ...errors import KeyMissing
from ...project_settings import KEY_RINGS

DATABASE_SECONDS = 0.9
"""For each database on PostgreSQL, including a new connection: the response takes less than 2 s
while both hang.
"""
PROBE_TIMEOUT_SECONDS = DATABASE_SECONDS / 2
"""For each statement of the probe on PostgreSQL: the server ends it before the deadline shuts the
connection down.
"""
PROBE_SECONDS = 5.0
"""How long a process keeps the answer whether an event can be written: each probe leaves dead rows
to be vacuumed.
"""
WORKING = "working"
UNAVAILABLE = "unavailable"


class WriteProbe:
    """Whether the audit log accepts an event: tried by one thread of the process at a time, at most
    every 5 s.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._is_writable = False
        self._fresh_until = float("-inf")

    def is_writable(self) -> bool:
        """Return the answer, up to PROBE_SECONDS old. Requires: no open transaction."""
        with self._lock:
            if self._monotonic() >= self._fresh_until:
                self._is_writable = is_writable(
                    now=clock.now(), timeout_seconds=PROBE_TIMEOUT_SECONDS
                )
                self._fresh_until = self._monotonic() + PROBE_SECONDS
            return self._is_writable


_write_probe = WriteProbe()


@method_decorator(public_view, name="dispatch")
class HealthView(View):
    """Reports each part that sign-in and access depend on: status 200, or 500 if one is
    unavailable.

    The response gives no reasons. Providers are not checked: an outage of one is no reason to
    remove a server.
    """

    http_method_names = ("get", "head")

    def get(self, request: HttpRequest) -> HttpResponse:
        parts = {
            "database": _is_database_available(DEFAULT_DB_ALIAS),
            "trail": _is_audit_log_writable(),
            "keys": _has_keys(),
        }
        states = {}
        status = 200
        for name, works in parts.items():
            if works:
                states[name] = WORKING
            else:
                states[name] = UNAVAILABLE
                status = 500
        return set_private_headers(JsonResponse(states, status=status))


def _is_database_available(alias: str) -> bool:
    try:
        with (
            connection_deadline(DATABASE_SECONDS, using=alias),
            connections[alias].cursor() as cursor,
        ):
            cursor.execute("SELECT 1")
            return bool(cursor.fetchone())
    except (DatabaseError, InterfaceError):
        return False


def _is_audit_log_writable() -> bool:
    try:
        # One deadline for both.
        with connection_deadline(DATABASE_SECONDS, using=AUDIT_ALIAS):
            return _is_database_available(AUDIT_ALIAS) and _write_probe.is_writable()
    except (DatabaseError, InterfaceError):
        # The deadline opens the connection.
        return False


def _has_keys() -> bool:
    try:
        return all(keyring.get_keys(ring) for ring in KEY_RINGS)
    except KeyMissing:
        return False
