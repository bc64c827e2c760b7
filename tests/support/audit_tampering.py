"""Tampering as a database administrator: SQL without the triggers."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from django.db import connections

EVENT, LEAF, NODE, CHECKPOINT, QUEUE = (
    f"phi_oidc_audit_audit{name}" for name in ("event", "leaf", "node", "checkpoint", "unsealed")
)
TABLES = (EVENT, LEAF, NODE, CHECKPOINT)


def is_postgresql() -> bool:
    return connections["phi_audit"].vendor == "postgresql"


def sql(statement: str, *values: Any) -> int:
    """Execute a statement on the audit database, and return the number of rows. Converts UUIDs for SQLite."""
    parameters = [value.hex if isinstance(value, uuid.UUID) and not is_postgresql() else value for value in values]
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute(statement, parameters or None)
        return int(cursor.rowcount)


@contextmanager
def executed(statement: str, undo: str) -> Iterator[None]:
    """Execute these statements on the audit database before and after the block."""
    sql(statement)
    try:
        yield
    finally:
        sql(undo)


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


@contextmanager
def dropping_trigger(table: str, *, only_id: uuid.UUID | None = None, using: str = "phi_audit") -> Iterator[None]:
    """Make the database accept and drop what is inserted into a table inside the block: all rows, or one."""
    name, full = f"tampering_{table}", f"phi_oidc_audit_{table}"
    with connections[using].cursor() as cursor:
        if connections[using].vendor == "postgresql":
            condition = f"NEW.id = '{only_id}'" if only_id else "true"
            cursor.execute(
                f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS "
                f"'BEGIN IF {condition.replace(chr(39), chr(39) * 2)} THEN RETURN NULL; END IF; RETURN NEW; END'"
            )
            cursor.execute(f"CREATE TRIGGER {name} BEFORE INSERT ON {full} FOR EACH ROW EXECUTE FUNCTION {name}()")
            undo = [f"DROP TRIGGER {name} ON {full}", f"DROP FUNCTION {name}()"]
        else:
            condition = f"WHEN NEW.id = '{only_id.hex}'" if only_id else ""
            cursor.execute(f"CREATE TRIGGER {name} BEFORE INSERT ON {full} {condition} BEGIN SELECT RAISE(IGNORE); END")
            undo = [f"DROP TRIGGER {name}"]
    try:
        yield
    finally:
        with connections[using].cursor() as cursor:
            for statement in undo:
                cursor.execute(statement)


@contextmanager
def dropping_rule(table: str) -> Iterator[None]:
    """Make PostgreSQL ignore what is inserted into a table inside the block, without a trigger."""
    name, full = f"tampering_{table}", f"phi_oidc_audit_{table}"
    sql(f"CREATE RULE {name} AS ON INSERT TO {full} DO INSTEAD NOTHING")
    try:
        yield
    finally:
        sql(f"DROP RULE {name} ON {full}")


DropRows = Callable[[str], AbstractContextManager[None]]
DROPPED_ROWS = {"trigger": dropping_trigger, "rule": pytest.param(dropping_rule, marks=pytest.mark.postgresql)}
