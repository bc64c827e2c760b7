"""Single statements, without what query sets do around them: a sign-in pays for each round trip, and for building SQL.

No signal is sent, no key is read back, and a statement that is a transaction by itself gets no frame.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from django.db import connections, models, transaction

_ASYNC_COMMIT_CLAUSE = " USING (SELECT set_config('synchronous_commit', 'off', true)) AS need_not_wait"
"""PostgreSQL's way to commit a statement before it is on disk: only this one, and only where it stands alone."""

_cursors: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""Of each database connection the driver's cursor for `insert_alone`: a new one learns anew how to write each type."""


def durable(using: str) -> AbstractContextManager[None]:
    """Return a block in which one statement is committed when it returns, whatever is rolled back later.

    Where no transaction is open, the database sees to that itself; BEGIN and COMMIT would be two round trips more.
    Raises: RuntimeError where one is open, or where the connection opens them unasked. Django's TestCase may have one.
    """
    connection = connections[using]
    if connection.get_autocommit():
        return nullcontext()
    if not connection.in_atomic_block:
        raise RuntimeError("A durable statement needs a connection in autocommit.")
    return transaction.atomic(using=using, durable=True)


@contextmanager
def statement_timeout(seconds: float, *, using: str) -> Iterator[None]:
    """Let each statement of the block, a transaction of its own, take no longer on PostgreSQL, and then fail.

    Raises: RuntimeError where a transaction is open. Django's TestCase may have one.
    """
    connection = connections[using]
    with transaction.atomic(using=using, durable=True):
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                # Of this transaction: a pooler gives the connection to somebody else after it.
                cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(round(seconds * 1000))])
        yield


def read_statement_timeout(seconds: float, *, using: str) -> AbstractContextManager[None]:
    """Return `within` for statements that only read: on SQLite nothing, as a transaction there is a writer's."""
    return statement_timeout(seconds, using=using) if connections[using].vendor == "postgresql" else nullcontext()


def insert(
    rows: Sequence[models.Model], *, using: str, unique_columns: Sequence[str] = (), update_columns: Sequence[str] = ()
) -> None:
    """Insert rows of one model, at least one, all or none, by one statement unless the database takes only a part.

    unique: names of columns with a unique index; where a row has their values already, it gets those of the columns
    replaced. Without unique, such a row is an IntegrityError. An automatic key is left to the database.
    """
    connection = connections[using]
    fields = [field for field in rows[0]._meta.concrete_fields if not isinstance(field, models.AutoField)]
    most = (connection.features.max_query_params or len(rows) * len(fields)) // len(fields)
    parts = [rows[start : start + most] for start in range(0, len(rows), most)]
    frame = transaction.atomic(using=using, savepoint=False) if len(parts) > 1 else nullcontext()
    with frame, connection.cursor() as cursor:
        for part in parts:
            values = [field.get_db_prep_save(field.pre_save(row, True), connection) for row in part for field in fields]
            cursor.execute(_build_insert(connection, fields, len(part), unique_columns, update_columns), values)
    for row in rows:
        row._state.adding, row._state.db = False, using


def insert_autocommit(model: type[models.Model], values: Sequence[Any], *, using: str) -> bool:
    """Insert a row by a transaction of its own, and say whether that could be done; if not, nothing was done.

    It can on PostgreSQL, in autocommit, where nobody watches Django's cursors. The row goes to the driver as it is,
    bound on the server, and prepared there where the alias has `prepare_threshold` in its OPTIONS: half the cost.
    values: of all concrete fields, in their order, of types that the driver writes as the columns have them.
    """
    connection: Any = connections[using]
    if connection.vendor != "postgresql" or connection.execute_wrappers or connection.queries_logged:
        return False
    connection.close_if_health_check_failed()
    if not connection.get_autocommit():
        return False
    with connection.wrap_database_errors:
        cursor = _cursors.get(connection)
        if cursor is None or cursor.connection is not connection.connection:
            cursor = _cursors[connection] = connection.Database.Cursor(connection.connection)
        cursor.execute(_build_prepared_insert(model), values)
    return True


def update(model: type[models.Model], key: Any, *, using: str, returning: str = "", **values: Any) -> Any:
    """Set fields of the row with this primary key, by one statement, and say whether there is such a row.

    returning: an SQL expression over the new row, to be returned instead; None when there is no such row.
    """
    connection = connections[using]
    fields: list[Any] = [model._meta.get_field(name) for name in values]
    pk: Any = model._meta.pk
    quote = connection.ops.quote_name
    sets = ", ".join(f"{quote(field.column)} = %s" for field in fields)
    statement = f"UPDATE {quote(model._meta.db_table)} SET {sets} WHERE {quote(pk.column)} = %s"  # noqa: S608 -- as above
    if returning:
        statement += f" RETURNING {returning}"
    given = zip((*fields, pk), (*values.values(), key), strict=True)
    with connection.cursor() as cursor:
        cursor.execute(statement, [field.get_db_prep_save(value, connection) for field, value in given])
        if returning:
            row = cursor.fetchone()
            return row[0] if row else None
        return bool(cursor.rowcount)


def delete(model: type[models.Model], keys: Sequence[Any], *, using: str) -> None:
    """Delete the rows with these primary keys, at least one. Requires: that a crash may bring them back.

    On PostgreSQL, outside a transaction, it is not waited for until the deletion is on disk.
    """
    connection = connections[using]
    key: Any = model._meta.pk
    table, column = map(connection.ops.quote_name, (model._meta.db_table, key.column))
    hint = _ASYNC_COMMIT_CLAUSE if connection.vendor == "postgresql" and connection.get_autocommit() else ""
    statement = f"DELETE FROM {table}{hint} WHERE {column} IN ({_build_placeholders(len(keys))})"  # noqa: S608 -- the model's names
    with connection.cursor() as cursor:
        cursor.execute(statement, [key.get_db_prep_value(value, connection) for value in keys])


def count_rows(querysets: Sequence[models.QuerySet[Any]], *, limit: int, using: str) -> list[int]:
    """Return how many rows each of parts has, by one SELECT; no further is counted than most.

    The order of a part is kept: where an index has it, the database goes along that, and not through the table.
    """
    if not querysets:
        return []
    compiled = [part.values("pk")[:limit].query.get_compiler(using).as_sql() for part in querysets]
    counted = ", ".join(f"(SELECT COUNT(*) FROM ({sql}) AS part)" for sql, _ in compiled)  # noqa: S608 -- Django's own
    with connections[using].cursor() as cursor:
        cursor.execute(f"SELECT {counted}", [value for _, given in compiled for value in given])
        return list(cursor.fetchone())


def _build_insert(
    connection: Any, fields: Sequence[Any], row_count: int, unique_columns: Sequence[str], update_columns: Sequence[str]
) -> str:
    quote = connection.ops.quote_name
    table, columns = quote(fields[0].model._meta.db_table), ", ".join(quote(field.column) for field in fields)
    places = ", ".join([f"({_build_placeholders(len(fields))})"] * row_count)
    statement = f"INSERT INTO {table} ({columns}) VALUES {places}"  # noqa: S608 -- the model's names
    if not unique_columns:
        return statement
    sets = ", ".join(f"{quote(column)} = EXCLUDED.{quote(column)}" for column in update_columns)
    return f"{statement} ON CONFLICT ({', '.join(map(quote, unique_columns))}) DO UPDATE SET {sets}"


@lru_cache(maxsize=64)
def _build_prepared_insert(model: type[models.Model]) -> bytes:
    columns = ", ".join(f'"{field.column}"' for field in model._meta.concrete_fields)
    places = _build_placeholders(len(model._meta.concrete_fields))
    return f'INSERT INTO "{model._meta.db_table}" ({columns}) VALUES ({places})'.encode()  # noqa: S608 -- as above


def _build_placeholders(count: int) -> str:
    return ", ".join(["%s"] * count)
