"""An audit database that hangs, and one that fails at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError, connections

from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.router import AUDIT_ALIAS


@contextmanager
def audit_database_hangs() -> Iterator[None]:
    """Block every INSERT of events until the end of the block. PostgreSQL."""
    other = connections[AUDIT_ALIAS].copy(AUDIT_ALIAS)
    try:
        with other.cursor() as cursor:
            cursor.execute(f"BEGIN; LOCK TABLE {AuditEvent._meta.db_table} IN SHARE MODE")
        yield
    finally:
        other.close()


@contextmanager
def audit_database_fails() -> Iterator[None]:
    """Make every statement on this thread's audit connection fail inside the block."""

    def fail(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        raise OperationalError("the server is away")

    with connections[AUDIT_ALIAS].execute_wrapper(fail):
        yield
