"""Comparison of the columns of the audit tables with those of the migrations, on PostgreSQL.

The owner of a table can give a column another type, whose values look different to different
readers: a cast to text that returns what was sealed, or padding that a comparison ignores. So no
SQL of this app casts a value of the log, and each transaction that reads the log compares the types
first.
"""

from collections.abc import Iterator

from django.db import connections

from .router import AUDIT_ALIAS

_TEXT = "character varying(256)"
# By name: the test runner imports this module before Django loads models.
COLUMN_TYPES = {
    "phi_oidc_audit_auditevent": {
        "id": "uuid",
        "v": "smallint",
        "mac_key": "character varying(8)",
        "occurred_at": "timestamp with time zone",
        "action": _TEXT,
        "outcome": "character varying(8)",
        "actor": _TEXT,
        "on_behalf_of": _TEXT,
        "subject": _TEXT,
        "provider": _TEXT,
        "session": _TEXT,
        "client_ip": _TEXT,
        "purpose": _TEXT,
        "resource": _TEXT,
        "reason": _TEXT,
        "request_id": _TEXT,
        "detail": "text",
        "mac": "bytea",
    },
    "phi_oidc_audit_auditleaf": {"leaf_index": "bigint", "event_id": "uuid", "leaf_hash": "bytea"},
    "phi_oidc_audit_auditnode": {"level": "smallint", "node_index": "bigint", "node_hash": "bytea"},
    "phi_oidc_audit_auditcheckpoint": {
        "tree_size": "bigint",
        "root_hash": "bytea",
        "epoch": "integer",
        "sealed_at": "timestamp with time zone",
        "note": "text",
    },
    "phi_oidc_audit_auditunsealed": {"event_id": "uuid", "refused": "boolean"},
}
"""The types by table and column, as `format_type` writes them if `pg_catalog` is the first schema
of the path.

The events are the first table: all transactions lock them first.
"""
# One row for all partitions of a table that have the same columns.
_COLUMNS_SQL = """
    SELECT table_name, columns::json, array_agg(name::text ORDER BY name) FROM (
        SELECT p.relname AS table_name, c.relname AS name, (
            SELECT jsonb_object_agg(attname, format_type(atttypid, atttypmod)) FROM pg_attribute
            WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) AS columns
        FROM pg_class p CROSS JOIN LATERAL (
            SELECT p.oid UNION ALL SELECT inhrelid FROM pg_inherits WHERE inhparent = p.oid) AS t (oid)
        JOIN pg_class c ON c.oid = t.oid
        WHERE p.oid = ANY (%s::regclass[])) AS tables
    GROUP BY table_name, columns ORDER BY table_name"""  # noqa: E501


def list_altered_columns() -> Iterator[str]:
    """Yield how the columns of the five tables, and of their partitions, differ from the
    migrations: sentences without a period.

    Requires: PostgreSQL, and `pg_catalog` as the first schema of the path. Raises: DatabaseError.
    """
    with connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(_COLUMNS_SQL, [list(COLUMN_TYPES)])
        rows = cursor.fetchall()
    for table, types, names in rows:
        migrated = COLUMN_TYPES[table]
        if types == migrated:
            continue
        for name in names:
            yield from _compare_columns(name, types or {}, migrated)


def _compare_columns(table: str, types: dict[str, str], migrated: dict[str, str]) -> Iterator[str]:
    for column, type_ in migrated.items():
        if column not in types:
            yield f"the column {column} of {table} is missing"
        elif types[column] != type_:
            yield f"the column {column} of {table} has the type {types[column]}, and not {type_}"
    for column in sorted(types.keys() - migrated.keys()):
        yield f"{table} has the column {column}"
