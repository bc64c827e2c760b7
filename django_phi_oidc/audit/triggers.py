"""Comparison of the database with the triggers that the migrations made, and their repair.

`migrations/0002_triggers.py` explains the triggers. A migration is frozen, so their current SQL is
here a second time; a test compares both. A migration that changes a trigger changes this module.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from typing import NamedTuple

from django.db import connections, transaction

from .._internal.overrides import override_global
from .partitions import list_partition_names
from .router import AUDIT_ALIAS
from .table_columns import list_altered_columns
from .trusted_transaction import trusted_transaction

_UNIQUE_COLUMNS = {
    "auditevent": ("id = NEW.id",),
    "auditleaf": ("leaf_index = NEW.leaf_index", "event_id = NEW.event_id"),
    "auditnode": ("(level = NEW.level AND node_index = NEW.node_index)",),
    "auditcheckpoint": ("tree_size = NEW.tree_size",),
}
"""The append-only tables, and the conditions under which a new row would replace another one."""
_PREFIX = "phi_oidc_audit_"
_EVENT_TABLE = f"{_PREFIX}auditevent"
_QUEUE_TABLE = f"{_PREFIX}auditunsealed"
_TABLES = (*(f"{_PREFIX}{table}" for table in _UNIQUE_COLUMNS), _QUEUE_TABLE)
_NAMES = {table: f"phi_oidc_{table}_refuse" for table in _UNIQUE_COLUMNS} | {
    "auditevent": "phi_oidc_audit_refuse"
}
_QUEUE_TRIGGER = "phi_oidc_audit_queue"
_REFUSE_FUNCTION = "phi_oidc_audit_refuse"
_REFUSE_BODY = """
BEGIN
    RAISE EXCEPTION 'audit events are never changed or deleted: % refused', TG_OP
        USING ERRCODE = 'restrict_violation';
END
"""
# SECURITY DEFINER: a writer of events needs no right on the queue. The schemas are spelled out, so
# that neither a temporary table nor an operator of the writer is used. A time that Python cannot
# represent would make pages and exports of the log unreadable.
_QUEUE_BODY = """
BEGIN
    IF NEW.occurred_at OPERATOR(pg_catalog.<) '0001-01-02 00:00:00+00'::pg_catalog.timestamptz
        OR NEW.occurred_at OPERATOR(pg_catalog.>) '9999-12-30 00:00:00+00'::pg_catalog.timestamptz
    THEN
        RAISE EXCEPTION 'this is no time of an event' USING ERRCODE = 'check_violation';
    END IF;
    INSERT INTO {schema}.phi_oidc_audit_auditunsealed (event_id) VALUES (NEW.id);
    RETURN NULL;
END
"""
_SCHEMA_SQL = f"""
    SELECT quote_ident(nspname) FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid
    WHERE c.oid = to_regclass('{_QUEUE_TABLE}')"""  # noqa: S608 -- constants
_SETTINGS_SQL = """
    SELECT pg_catalog.current_setting('synchronous_commit'), (pg_catalog.current_schemas(true))[1]::pg_catalog.text"""  # noqa: E501
_CATALOGUE_SQL = """
    SELECT c.relname, t.tgname, t.tgenabled::text, t.tgtype::int,
        t.tgqual IS NULL AND t.tgattr::text = '' AND t.tgnargs = 0 AND p.proconfig IS NULL AND l.lanname = 'plpgsql',
        p.prosrc, p.prosecdef
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid
    JOIN pg_language l ON l.oid = p.prolang
    WHERE (NOT t.tgisinternal OR t.tgparentid <> 0) AND t.tgrelid = ANY (%s::regclass[]) ORDER BY c.relname, t.tgname"""  # noqa: E501
_TABLE_SQL = """
    SELECT c.relname, c.relkind::text, c.relpersistence::text, c.relrowsecurity,
        array(SELECT rulename::text FROM pg_rewrite WHERE ev_class = c.oid ORDER BY rulename)
    FROM pg_class c WHERE c.oid = ANY (%s::regclass[]) ORDER BY c.relname"""
# Bits of pg_trigger.tgtype: for each row, before; INSERT, DELETE, UPDATE, TRUNCATE.
_ROW = 1
_BEFORE = 2
_INSERT = 4
_DELETE = 8
_UPDATE = 16
_TRUNCATE = 32
_REFUSED_POSTGRESQL = {
    "update": ("ROW", _ROW | _BEFORE | _UPDATE),
    "delete": ("ROW", _ROW | _BEFORE | _DELETE),
    "truncate": ("STATEMENT", _BEFORE | _TRUNCATE),
}
_optional_operations: frozenset[str] = frozenset()


class _Trigger(NamedTuple):
    """What PostgreSQL's catalogue says about a trigger and its function."""

    type: int
    body: str
    is_security_definer: bool
    enabled: str = "A"
    is_plain: bool = True
    """Without condition, column list and arguments; a PL/pgSQL function without settings."""


def allow_deletion() -> AbstractContextManager[None]:
    """Accept databases without triggers against DELETE and TRUNCATE, in this process: for tests,
    which flush tables.
    """
    return override_global(globals(), "_optional_operations", frozenset({"delete", "truncate"}))


def _create_statements(vendor: str, *, schema: str = "") -> Iterator[str]:
    """Yield the statements that create all triggers and functions. schema: of the tables, quoted
    (PostgreSQL).
    """
    if vendor == "postgresql":
        yield (
            f"CREATE OR REPLACE FUNCTION {_REFUSE_FUNCTION}() RETURNS "
            f"trigger LANGUAGE plpgsql AS $${_REFUSE_BODY}$$"
        )
        body = _QUEUE_BODY.format(schema=schema)
        function = (
            f"CREATE OR REPLACE FUNCTION {_QUEUE_TRIGGER}() RETURNS "
            "trigger LANGUAGE plpgsql SECURITY DEFINER"
        )
        yield f"{function} AS $${body}$$"
        # Otherwise any role fills the queue by a trigger of its own temporary table.
        yield f"REVOKE ALL ON FUNCTION {_QUEUE_TRIGGER}(), {_REFUSE_FUNCTION}() FROM PUBLIC"
        for table in _UNIQUE_COLUMNS:
            yield from _create_refusals_postgresql(table)
        yield (
            f"CREATE TRIGGER {_QUEUE_TRIGGER} AFTER INSERT ON {_EVENT_TABLE} "
            f"FOR EACH ROW EXECUTE FUNCTION {_QUEUE_TRIGGER}()"
        )
        yield f"ALTER TABLE {_EVENT_TABLE} ENABLE ALWAYS TRIGGER {_QUEUE_TRIGGER}"
        return
    for table in _UNIQUE_COLUMNS:
        yield from _create_refusals_sqlite(table)
    insertion = f"INSERT INTO {_QUEUE_TABLE} (event_id) VALUES (NEW.id)"  # noqa: S608 -- constants
    yield f"CREATE TRIGGER {_QUEUE_TRIGGER} AFTER INSERT ON {_EVENT_TABLE} BEGIN {insertion}; END"


def _create_partition_statements(table: str, partition: str) -> Iterator[str]:
    """Yield the statements for a partition after those for its table, which also create its
    triggers for rows.
    """
    truncate = f"{_NAMES[table.removeprefix(_PREFIX)]}_truncate"
    yield f"DROP TRIGGER IF EXISTS {truncate} ON {partition}"
    yield (
        f"CREATE TRIGGER {truncate} BEFORE TRUNCATE ON {partition} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {_REFUSE_FUNCTION}()"
    )
    for other, name in _list_names("postgresql"):
        if other == table:
            yield f"ALTER TABLE {partition} ENABLE ALWAYS TRIGGER {name}"


def _create_refusals_postgresql(table: str) -> Iterator[str]:
    """Yield the statements that make PostgreSQL refuse to change that table."""
    name = _NAMES[table]
    full = f"{_PREFIX}{table}"
    for operation, (scope, _) in _REFUSED_POSTGRESQL.items():
        yield (
            f"CREATE TRIGGER {name}_{operation} BEFORE {operation.upper()} ON {full} "
            f"FOR EACH {scope} EXECUTE FUNCTION {_REFUSE_FUNCTION}()"
        )
        yield f"ALTER TABLE {full} ENABLE ALWAYS TRIGGER {name}_{operation}"


def _create_refusals_sqlite(table: str) -> Iterator[str]:
    """Yield the statements that make SQLite refuse to change that table."""
    name = _NAMES[table]
    full = f"{_PREFIX}{table}"
    exists = " OR ".join((*_UNIQUE_COLUMNS[table], "rowid = NEW.rowid"))
    for operation, timing in (
        ("update", f"UPDATE ON {full}"),
        ("delete", f"DELETE ON {full}"),
        ("replace", f"INSERT ON {full} WHEN EXISTS (SELECT 1 FROM {full} WHERE {exists})"),  # noqa: S608 -- constants
    ):
        refusal = (
            "RAISE(ABORT, 'audit events are never changed or "
            f"deleted: {operation.upper()} refused')"
        )
        yield f"CREATE TRIGGER {name}_{operation} BEFORE {timing} BEGIN SELECT {refusal}; END"


def _drop_statements(vendor: str) -> Iterator[str]:
    """Yield the statements that drop the triggers, but not their functions."""
    is_postgresql = vendor == "postgresql"
    for table, name in _list_names(vendor):
        yield f"DROP TRIGGER IF EXISTS {name}{f' ON {table}' if is_postgresql else ''}"


def list_deviations() -> list[str]:
    """Return how triggers, functions, columns and persistence differ from what the migrations made.

    Also reports other triggers and rules, which can drop rows or change them, and commits that do
    not wait for the disk. An administrator can change all of this and change it back: only `audit
    verify` shows what was done meanwhile.
    Requires: the tables exist. Raises: DatabaseError.
    """
    if connections[AUDIT_ALIAS].vendor != "postgresql":
        return list(_list_altered_triggers_sqlite())
    deviations = list(_list_altered_settings())
    with trusted_transaction(allow_altered_columns=True):
        return [
            *deviations,
            *_list_altered_tables(),
            *list_altered_columns(),
            *_list_altered_triggers_postgresql(),
        ]


def repair() -> None:
    """Create triggers and functions again as the migrations made them, and make the tables durable.

    Other triggers and rules stay, and types of columns: `list_deviations` names them. Requires: the
    role owns the tables. Raises: DatabaseError.
    """
    connection = connections[AUDIT_ALIAS]
    with transaction.atomic(using=AUDIT_ALIAS), connection.cursor() as cursor:
        schema = _find_schema()
        if connection.vendor == "postgresql":
            # Functions are created in the first schema of the path.
            cursor.execute("SELECT set_config('search_path', %s, true)", [schema])
            cursor.execute(
                _TABLE_SQL, [[*_TABLES, *chain.from_iterable(list_partition_names().values())]]
            )
            for table, _, persistence, has_row_security, _ in cursor.fetchall():
                if persistence != "p":
                    cursor.execute(f"ALTER TABLE {table} SET LOGGED")
                if has_row_security:
                    cursor.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
        for statement in (
            *_drop_statements(connection.vendor),
            *_create_statements(connection.vendor, schema=schema),
        ):
            cursor.execute(statement)
        for table, partitions in list_partition_names().items():
            for name in partitions:
                for statement in _create_partition_statements(table, name):
                    cursor.execute(statement)


def _find_schema() -> str:
    """Return the schema of the audit tables, quoted; empty on SQLite."""
    if connections[AUDIT_ALIAS].vendor != "postgresql":
        return ""
    with connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(_SCHEMA_SQL)
        row = cursor.fetchone()
    return row[0] if row else ""


def _list_names(vendor: str) -> Iterator[tuple[str, str]]:
    """Yield table and name of each trigger."""
    operations: Iterable[str]
    if vendor == "postgresql":
        operations = _REFUSED_POSTGRESQL
    else:
        operations = ("update", "delete", "replace")

    for table, name in _NAMES.items():
        for operation in operations:
            yield f"{_PREFIX}{table}", f"{name}_{operation}"
    yield _EVENT_TABLE, _QUEUE_TRIGGER


def _is_optional(name: str) -> bool:
    return name.rpartition("_")[2] in _optional_operations


def _list_altered_settings() -> Iterator[str]:
    with connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(_SETTINGS_SQL)
        commits, first_schema = cursor.fetchone() or ("", "")
    if commits == "off":
        yield (
            "synchronous_commit is off: a crash of the server loses events that permitted something"
        )
    if first_schema != "pg_catalog" and not first_schema.startswith("pg_temp"):
        yield (
            f"search_path has {first_schema} before pg_catalog: its "
            "functions replace those of PostgreSQL"
        )


def _list_altered_tables() -> Iterator[str]:
    with connections[AUDIT_ALIAS].cursor() as cursor:
        partitions = list_partition_names()
        cursor.execute(_TABLE_SQL, [[*_TABLES, *chain.from_iterable(partitions.values())]])
        for table, kind, persistence, has_row_security, rules in cursor.fetchall():
            if kind != ("p" if partitions.get(table) else "r"):
                yield f"{table} is not a table"
            if persistence != "p":
                yield f"{table} is UNLOGGED: a crash of the server empties it"
            if has_row_security:
                yield f"{table} has row level security, which hides rows"
            for rule in rules:
                yield f"{table} has the rule {rule}, which can drop or change rows"


def _list_altered_triggers_postgresql() -> Iterator[str]:
    partitions = list_partition_names()
    expected = dict(_get_expected_triggers(_find_schema(), partitions))
    with connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(_CATALOGUE_SQL, [[*_TABLES, *chain.from_iterable(partitions.values())]])
        found: dict[tuple[str, str], _Trigger] = {}
        for table, name, enabled, type_, is_plain, body, is_definer in cursor.fetchall():
            found[table, name] = _Trigger(type_, _normalize(body), is_definer, enabled, is_plain)
    for place, trigger in expected.items():
        where = f"the trigger {place[1]} of {place[0]}"
        actual = found.get(place)
        if actual is None:
            if not _is_optional(place[1]):
                yield f"{where} is missing"
        elif actual.enabled != "A":
            yield f"{where} is not ENABLE ALWAYS"
        elif actual != trigger:
            yield f"{where} or its function was replaced"
    for table, name in found.keys() - expected.keys():
        yield f"{table} has the trigger {name}, which can drop or change rows"


def _get_expected_triggers(
    schema: str, partitions: Mapping[str, Sequence[str]]
) -> Iterator[tuple[tuple[str, str], _Trigger]]:
    """partitions: names by table; each has the triggers of its table."""
    queue = _Trigger(_ROW | _INSERT, _normalize(_QUEUE_BODY.format(schema=schema)), True)
    places = []
    for short_name, name in _NAMES.items():
        table = f"{_PREFIX}{short_name}"
        for place in (table, *partitions.get(table, ())):
            places.append((place, name))
    for table, name in places:
        for operation, (_, type_) in _REFUSED_POSTGRESQL.items():
            yield (table, f"{name}_{operation}"), _Trigger(type_, _normalize(_REFUSE_BODY), False)
    for table in (_EVENT_TABLE, *partitions[_EVENT_TABLE]):
        yield (table, _QUEUE_TRIGGER), queue


def _list_altered_triggers_sqlite() -> Iterator[str]:
    expected = dict(
        zip(_list_names("sqlite"), map(_normalize, _create_statements("sqlite")), strict=True)
    )
    with connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(
            "SELECT tbl_name, name, sql FROM sqlite_master WHERE "
            "type = 'trigger' ORDER BY tbl_name, name"
        )
        found: dict[tuple[str, str], str] = {}
        for table, name, sql in cursor.fetchall():
            if table in _TABLES:
                found[table, name] = _normalize(str(sql))
        cursor.execute("PRAGMA synchronous")
        is_synchronous = cursor.fetchone() != (0,)
    for place, statement in expected.items():
        where = f"the trigger {place[1]} of {place[0]}"
        if place not in found:
            if not _is_optional(place[1]):
                yield f"{where} is missing"
        elif found[place] != statement:
            yield f"{where} was replaced"
    for table, name in sorted(found.keys() - expected.keys()):
        yield f"{table} has the trigger {name}, which can drop or change rows"
    if not is_synchronous:
        yield (
            "PRAGMA synchronous is OFF: a crash of the machine "
            "loses events that permitted something"
        )


def _normalize(statement: str) -> str:
    # SQLite quotes the names in a trigger when one of its tables is renamed.
    return " ".join(statement.replace('"', "").split())
