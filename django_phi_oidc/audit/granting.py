"""The role by which the application reaches the trail on PostgreSQL: it reads and inserts, and nothing else."""

import re
from collections.abc import Iterator

from django.db import DEFAULT_DB_ALIAS, connections

from .models import AuditCheckpoint, AuditEvent, AuditLeaf, AuditNode, AuditUnsealed
from .routing import AUDIT_ALIAS

ROLE = re.compile(r"[a-z_][a-z0-9_]{0,62}")
KEPT = (AuditEvent, AuditLeaf, AuditNode, AuditCheckpoint)
FORBIDDEN = ("UPDATE", "DELETE", "TRUNCATE", "TRIGGER", "REFERENCES")


def grants(role: str) -> Iterator[str]:
    """Yield the statements that let role write and read the trail, and seal it, and take every other right from it.

    To be run by the owner of the tables, who is another role. The queue of what is not sealed yet is no part of the
    trail: its rows come and go.
    Raises: ValueError for a role name that would have to be quoted.
    """
    if not ROLE.fullmatch(role):
        raise ValueError("A role's name has lower-case letters, digits and underscores.")
    for model in KEPT:
        table = model._meta.db_table
        yield f"REVOKE ALL ON {table} FROM PUBLIC, {role};"
        yield f"GRANT SELECT, INSERT ON {table} TO {role};"
    queue = AuditUnsealed._meta.db_table
    yield f"REVOKE ALL ON {queue} FROM PUBLIC, {role};"
    yield f"GRANT SELECT, INSERT, UPDATE, DELETE ON {queue} TO {role};"


def excess(using: str = AUDIT_ALIAS) -> list[str]:
    """Return what this connection's role could do to the trail beyond reading and inserting; empty when nothing.

    An owner or a superuser can do anything: it could disable the triggers. Requires: PostgreSQL.
    """
    found = []
    with connections[using].cursor() as cursor:

        def is_true(query: str, *values: str) -> bool:
            cursor.execute(query, values)
            row = cursor.fetchone()
            return row is not None and row[0] is True

        if is_true("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
            return ["is a superuser"]
        for table in (model._meta.db_table for model in KEPT):
            if is_true("SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass(%s)", table):
                found.append(f"owns {table}")
                continue
            found += [
                f"has {right} on {table}"
                for right in FORBIDDEN
                if is_true("SELECT has_table_privilege(to_regclass(%s), %s)", table, right)
            ]
    return found


def is_shared() -> bool:
    """Say whether `default` and `phi_audit` are one PostgreSQL database."""
    where = []
    for alias in (DEFAULT_DB_ALIAS, AUDIT_ALIAS):
        if connections[alias].vendor != "postgresql":
            return False
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT pg_postmaster_start_time(), current_database()")
            where.append(cursor.fetchone())
    return bool(where[0] == where[1])
