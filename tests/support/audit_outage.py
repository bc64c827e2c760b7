"""A trail that does not answer, and one that fails at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError, connections

from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.router import AUDIT_ALIAS


@contextmanager
def audit_database_hangs() -> Iterator[None]:
    """Let every INSERT into the trail wait for as long as the block lasts. PostgreSQL."""
    other = connections[AUDIT_ALIAS].copy(AUDIT_ALIAS)
    try:
        with other.cursor() as cursor:
            cursor.execute(f"BEGIN; LOCK TABLE {AuditEvent._meta.db_table} IN SHARE MODE")
        yield
    finally:
        other.close()


@contextmanager
def audit_database_fails() -> Iterator[None]:
    """Let every statement on the trail fail, on this thread's connection, for as long as the block lasts."""

    def fail(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        raise OperationalError("the server is away")

    with connections[AUDIT_ALIAS].execute_wrapper(fail):
        yield
