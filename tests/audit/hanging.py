"""A trail that does not answer: somebody has locked its table."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connections

from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.routing import AUDIT_ALIAS


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
