"""A page for load balancers: whether this server can do its work, in the form of django-health-check."""

from django.db import DEFAULT_DB_ALIAS, DatabaseError, InterfaceError, connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.decorators import method_decorator
from django.views.generic import View

from .. import conf
from .._internal.sql import read_statement_timeout
from .._internal.view_decorators import public_view
from ..access.responses import set_private_headers
from ..audit.router import AUDIT_ALIAS
from ..crypto import keyring
from ..errors import KeyMissing

STATEMENT_TIMEOUT_SECONDS = 2.0
"""That PostgreSQL may take for an answer."""
WORKING, UNAVAILABLE = "working", "unavailable"


@method_decorator(public_view, name="dispatch")
class HealthView(View):
    """Says of each part without which nobody can sign in or look whether it works: 200, or 500 when one does not.

    Why one does not, it tells nobody. The providers are no part: one that is away is no reason to take a server out.
    """

    http_method_names = ("get", "head")

    def get(self, request: HttpRequest) -> HttpResponse:
        parts = {
            "database": _is_database_available(DEFAULT_DB_ALIAS),
            "trail": _is_database_available(AUDIT_ALIAS),
            "keys": _has_keys(),
        }
        told = {name: WORKING if works else UNAVAILABLE for name, works in parts.items()}
        return set_private_headers(JsonResponse(told, status=200 if all(parts.values()) else 500))


def _is_database_available(alias: str) -> bool:
    try:
        with read_statement_timeout(STATEMENT_TIMEOUT_SECONDS, using=alias), connections[alias].cursor() as cursor:
            cursor.execute("SELECT 1")
            return bool(cursor.fetchone())
    except (DatabaseError, InterfaceError):
        return False


def _has_keys() -> bool:
    try:
        return all(keyring.get_keys(ring) for ring in conf.KEY_RINGS)
    except KeyMissing:
        return False
