"""Tampering as a database administrator: SQL without the triggers."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections

EVENT, LEAF, NODE, CHECKPOINT, QUEUE = (
    f"django_phi_oidc_audit{name}" for name in ("event", "leaf", "node", "checkpoint", "unsealed")
)
TABLES = (EVENT, LEAF, NODE, CHECKPOINT)


def is_postgresql() -> bool:
    return connections["phi_audit"].vendor == "postgresql"


def sql(statement: str, *values: Any) -> int:
    """Execute a statement on the audit database, and return the number of rows. Converts UUIDs for SQLite."""
    parameters = [value.hex if isinstance(value, uuid.UUID) and not is_postgresql() else value for value in values]
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute(statement, parameters)
        return int(cursor.rowcount)


@contextmanager
def without_triggers() -> Iterator[None]:
    """Disable all triggers of the audit tables inside the block, as their owner or a superuser can."""
    if is_postgresql():
        for table in TABLES:
            sql(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        try:
            yield
        finally:
            for table in TABLES:
                sql(f"ALTER TABLE {table} ENABLE TRIGGER ALL")
                with connections["phi_audit"].cursor() as cursor:
                    cursor.execute(
                        "SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal", [table]
                    )
                    for (name,) in cursor.fetchall():
                        sql(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")
        return
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
        triggers = cursor.fetchall()
    for name, _ in triggers:
        sql(f"DROP TRIGGER {name}")
    try:
        yield
    finally:
        for _, create in triggers:
            sql(create)


def copy_event(source: uuid.UUID, **changed: Any) -> None:
    """Insert a copy of an event with some columns changed."""
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute(f"SELECT * FROM {EVENT} WHERE id = %s", [source if is_postgresql() else source.hex])
        columns = [column[0] for column in cursor.description]
        row = dict(zip(columns, cursor.fetchone(), strict=True)) | changed
    places = ", ".join(["%s"] * len(columns))
    sql(f"INSERT INTO {EVENT} ({', '.join(columns)}) VALUES ({places})", *row.values())
