"""A health check for load balancers, in the format of django-health-check."""

from django.db import DEFAULT_DB_ALIAS, DatabaseError, InterfaceError, connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.decorators import method_decorator
from django.views.generic import View

from .. import conf
from .._internal.connection_deadline import connection_deadline
from .._internal.view_decorators import public_view
from ..access.responses import set_private_headers
from ..audit.router import AUDIT_ALIAS
from ..crypto import keyring
from ..errors import KeyMissing

DATABASE_SECONDS = 0.9
"""For each database on PostgreSQL, including a new connection: the response takes less than 2 s while both hang."""
WORKING, UNAVAILABLE = "working", "unavailable"


@method_decorator(public_view, name="dispatch")
class HealthView(View):
    """Reports each part that sign-in and access depend on: status 200, or 500 if one is unavailable.

    The response gives no reasons. Providers are not checked: an outage of one is no reason to remove a server.
    """

    http_method_names = ("get", "head")

    def get(self, request: HttpRequest) -> HttpResponse:
        parts = {
            "database": _is_database_available(DEFAULT_DB_ALIAS),
            "trail": _is_database_available(AUDIT_ALIAS),
            "keys": _has_keys(),
        }
        states = {name: WORKING if works else UNAVAILABLE for name, works in parts.items()}
        return set_private_headers(JsonResponse(states, status=200 if all(parts.values()) else 500))


def _is_database_available(alias: str) -> bool:
    try:
        with connection_deadline(DATABASE_SECONDS, using=alias), connections[alias].cursor() as cursor:
            cursor.execute("SELECT 1")
            return bool(cursor.fetchone())
    except (DatabaseError, InterfaceError):
        return False


def _has_keys() -> bool:
    try:
        return all(keyring.get_keys(ring) for ring in conf.KEY_RINGS)
    except KeyMissing:
        return False
