"""The roles by which the application reaches the trail on PostgreSQL: they read and insert, and nothing else."""

import re
from collections.abc import Iterator

from django.db import DEFAULT_DB_ALIAS, connections

from .models import AuditCheckpoint, AuditEvent, AuditLeaf, AuditNode, AuditUnsealed
from .router import AUDIT_ALIAS

ROLE_NAME_PATTERN = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_EVENT_TABLE = AuditEvent._meta.db_table
_LOG_TABLES = tuple(model._meta.db_table for model in (AuditLeaf, AuditNode, AuditCheckpoint))
_QUEUE_TABLE = AuditUnsealed._meta.db_table
_CHECKED_PRIVILEGES = ("INSERT", "UPDATE", "DELETE", "TRUNCATE", "TRIGGER", "REFERENCES")
_COLUMN_PRIVILEGES = ("INSERT", "UPDATE", "REFERENCES")
"""What can be granted for a single column, too."""


def grant_statements(role: str, *, is_sealer: bool) -> Iterator[str]:
    """Yield the statements that give role what it needs of the trail, and take every other right from it.

    Everybody writes events and reads. What seals, and nobody else, writes the log, and empties the queue of what is not
    sealed yet, which is no part of the trail; a trigger that is the owner's fills it. To be run by that owner.
    Raises: ValueError for no role name.
    """
    if not ROLE_NAME_PATTERN.fullmatch(role):
        raise ValueError("A role's name has lower-case letters, digits and underscores.")
    for table in (_EVENT_TABLE, *_LOG_TABLES, _QUEUE_TABLE):
        rights = ", ".join(["SELECT", *_get_needed_privileges(table, is_sealer=is_sealer)])
        yield f'REVOKE ALL ON {table} FROM PUBLIC, "{role}";'
        yield f'GRANT {rights} ON {table} TO "{role}";'


def list_excess_privileges(using: str = AUDIT_ALIAS, *, is_sealer: bool) -> list[str]:
    """Return what this connection's role could do to the trail beyond what it needs; empty when nothing.

    An owner or a superuser can do anything: it could disable the triggers. Requires: PostgreSQL.
    """
    found = []
    with connections[using].cursor() as cursor:

        def is_true(query: str, *values: str) -> bool:
            cursor.execute(query, values)
            row = cursor.fetchone()
            return row is not None and row[0] is True

        def has(right: str, table: str) -> bool:
            whole = is_true("SELECT has_table_privilege(to_regclass(%s), %s)", table, right)
            any_column = "SELECT has_any_column_privilege(to_regclass(%s), %s)"
            return whole or (right in _COLUMN_PRIVILEGES and is_true(any_column, table, right))

        if is_true("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
            return ["is a superuser"]
        for table in (_EVENT_TABLE, *_LOG_TABLES, _QUEUE_TABLE):
            if is_true("SELECT pg_has_role(relowner, 'MEMBER') FROM pg_class WHERE oid = to_regclass(%s)", table):
                found.append(f"owns {table}")
                continue
            needed = _get_needed_privileges(table, is_sealer=is_sealer)
            found += [
                f"has {right} on {table}" for right in _CHECKED_PRIVILEGES if right not in needed and has(right, table)
            ]
    return found


def _get_needed_privileges(table: str, *, is_sealer: bool) -> tuple[str, ...]:
    """Return the rights on that table that are needed beside SELECT."""
    if table == _EVENT_TABLE:
        return ("INSERT",)
    if not is_sealer:
        return ()
    return ("INSERT", "UPDATE", "DELETE") if table == _QUEUE_TABLE else ("INSERT",)


def is_single_database() -> bool:
    """Say whether `default` and `phi_audit` are one PostgreSQL database."""
    where = []
    for alias in (DEFAULT_DB_ALIAS, AUDIT_ALIAS):
        if connections[alias].vendor != "postgresql":
            return False
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT pg_postmaster_start_time(), current_database()")
            where.append(cursor.fetchone())
    return bool(where[0] == where[1])
