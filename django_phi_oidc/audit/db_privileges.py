"""Privileges of the application's PostgreSQL roles on the audit tables: read and insert, nothing
else.
"""

import re
from collections.abc import Iterator
from itertools import chain

from django.db import DEFAULT_DB_ALIAS, connections

from .models import AuditCheckpoint, AuditEvent, AuditLeaf, AuditNode, AuditUnsealed
from .partitions import CREATE_FUNCTION, is_partitioned, list_partition_names
from .router import AUDIT_ALIAS

ROLE_NAME_PATTERN = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_EVENT_TABLE = AuditEvent._meta.db_table
_LOG_TABLES = tuple(model._meta.db_table for model in (AuditLeaf, AuditNode, AuditCheckpoint))
_QUEUE_TABLE = AuditUnsealed._meta.db_table
_TRIGGER_FUNCTIONS = ("phi_oidc_audit_queue()", "phi_oidc_audit_refuse()")
_SEALER_FUNCTION = f"{CREATE_FUNCTION}()"
"""It exists if the events have partitions."""
_CHECKED_PRIVILEGES = ("INSERT", "UPDATE", "DELETE", "TRUNCATE", "TRIGGER", "REFERENCES")
_COLUMN_PRIVILEGES = ("INSERT", "UPDATE", "REFERENCES")
"""Privileges that can also be granted for a single column."""


def grant_statements(role: str, *, is_sealer: bool) -> Iterator[str]:
    """Yield the statements that grant a role what it needs on the audit tables, and revoke
    everything else.

    All roles read, and insert events. Only the sealer's role writes the log, creates partitions,
    and empties the queue of unsealed events, which is filled by a trigger with the owner's rights.
    To be run by the owner.
    Raises: ValueError for an invalid role name.
    """
    if not ROLE_NAME_PATTERN.fullmatch(role):
        raise ValueError("A role name consists of lower-case letters, digits and underscores.")
    for table in (_EVENT_TABLE, *_LOG_TABLES, _QUEUE_TABLE):
        privileges = ", ".join(["SELECT", *_get_needed_privileges(table, is_sealer=is_sealer)])
        yield f'REVOKE ALL ON {table} FROM PUBLIC, "{role}";'
        yield f'GRANT {privileges} ON {table} TO "{role}";'
    # They are read and written through their table, whose privileges count.
    for name in chain.from_iterable(list_partition_names().values()):
        yield f'REVOKE ALL ON {name} FROM PUBLIC, "{role}";'
    for function in _TRIGGER_FUNCTIONS:
        yield f'REVOKE ALL ON FUNCTION {function} FROM PUBLIC, "{role}";'
    if is_partitioned():
        yield f'REVOKE ALL ON FUNCTION {_SEALER_FUNCTION} FROM PUBLIC, "{role}";'
        if is_sealer:
            yield f'GRANT EXECUTE ON FUNCTION {_SEALER_FUNCTION} TO "{role}";'


def list_excess_privileges(using: str = AUDIT_ALIAS, *, is_sealer: bool) -> list[str]:
    """Return what the role of this connection could do on the audit tables beyond its needs.

    An owner or superuser can do anything, such as disable the triggers. Requires: PostgreSQL.
    """
    excess = []
    with connections[using].cursor() as cursor:

        def is_true(query: str, *values: str) -> bool:
            cursor.execute(query, values)
            row = cursor.fetchone()
            return row is not None and row[0] is True

        def has(privilege: str, table: str) -> bool:
            on_table = is_true("SELECT has_table_privilege(to_regclass(%s), %s)", table, privilege)
            any_column = "SELECT has_any_column_privilege(to_regclass(%s), %s)"
            return on_table or (
                privilege in _COLUMN_PRIVILEGES and is_true(any_column, table, privilege)
            )

        if is_true("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
            return ["is a superuser"]
        for table in (_EVENT_TABLE, *_LOG_TABLES, _QUEUE_TABLE):
            if is_true(
                "SELECT pg_has_role(relowner, 'MEMBER') FROM pg_class WHERE oid = to_regclass(%s)",
                table,
            ):
                excess.append(f"owns {table}")
                continue
            needed = _get_needed_privileges(table, is_sealer=is_sealer)
            for privilege in _CHECKED_PRIVILEGES:
                if privilege not in needed and has(privilege, table):
                    excess.append(f"has {privilege} on {table}")
        for name in chain.from_iterable(list_partition_names().values()):
            for privilege in _CHECKED_PRIVILEGES:
                if has(privilege, name):
                    excess.append(f"has {privilege} on {name}")
        for function in (*_TRIGGER_FUNCTIONS, _SEALER_FUNCTION):
            if is_sealer and function == _SEALER_FUNCTION:
                continue
            if is_true("SELECT has_function_privilege(to_regprocedure(%s), 'EXECUTE')", function):
                excess.append(f"has EXECUTE on {function}")
    return excess


def _get_needed_privileges(table: str, *, is_sealer: bool) -> tuple[str, ...]:
    """Return the privileges that are needed in addition to SELECT."""
    if table == _EVENT_TABLE:
        return ("INSERT",)
    if not is_sealer:
        return ()

    if table == _QUEUE_TABLE:
        return ("INSERT", "UPDATE", "DELETE")
    return ("INSERT",)


def is_single_database() -> bool:
    """Whether `default` and `phi_audit` are the same PostgreSQL database."""
    databases = []
    for alias in (DEFAULT_DB_ALIAS, AUDIT_ALIAS):
        if connections[alias].vendor != "postgresql":
            return False
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT pg_postmaster_start_time(), current_database()")
            databases.append(cursor.fetchone())
    return bool(databases[0] == databases[1])
