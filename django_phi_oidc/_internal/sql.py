"""Single SQL statements without the overhead of query sets: no signals, no extra transaction.
INSERTs: `inserts`.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

from django.db import OperationalError, connections, models, transaction
from django.db.models import F, Q
from django.db.models.lookups import In

SUPPORTED_VENDORS = ("postgresql", "sqlite")
"""Only for these there are triggers that refuse changes of the audit log."""
_IDLE = 0
"""psycopg's transaction status of a connection without an open transaction."""
_LOCK_NOT_AVAILABLE = "55P03"
"""The SQLSTATE of a statement that exceeded lock_timeout."""
_ASYNC_COMMIT_SOURCE = "(SELECT set_config('synchronous_commit', 'off', true)) AS need_not_wait"
"""PostgreSQL commits this one statement before it is on disk, if it is a transaction by itself."""
_MAX_LISTED_VALUES = 8
"""PostgreSQL gets more values as one array. Query sets with more parameters are not compiled in
advance.
"""
_compiled: dict[Any, tuple[models.QuerySet[Any], Any, str]] = {}
"""The query sets of `fetch` with their compilers, which have no connection, and SQL."""


def durable(using: str) -> AbstractContextManager[None]:
    """Return a block in which one statement is committed when it returns, even if the caller's work
    is rolled back.

    In autocommit the database does this itself; BEGIN and COMMIT would be two more round trips.
    Raises: RuntimeError if a transaction is open (except that of Django's TestCase), or autocommit
    is off.
    """
    connection = connections[using]
    if connection.get_autocommit():
        return nullcontext()
    if not connection.in_atomic_block:
        raise RuntimeError("A durable statement needs a connection in autocommit.")
    return transaction.atomic(using=using, durable=True)


def savepoint() -> AbstractContextManager[None]:
    """Return a block after whose DatabaseError an open transaction of the default database can be
    committed.

    PostgreSQL aborts a transaction after an error, except back to a savepoint. Outside a
    transaction, nothing is done.
    """
    if transaction.get_connection().in_atomic_block:
        return transaction.atomic()
    return nullcontext()


@contextmanager
def limit_lock_waits(seconds: float) -> Iterator[None]:
    """Let each statement of this thread fail that waits for a lock for so long, on the PostgreSQL
    connections.

    It applies to transactions that begin inside the block. An open transaction is not changed.
    """
    with ExitStack() as stack:
        for connection in connections.all():
            if connection.vendor == "postgresql":
                stack.enter_context(
                    connection.execute_wrapper(partial(_execute_with_lock_timeout, seconds=seconds))
                )
        yield


def is_lock_timeout(error: OperationalError) -> bool:
    """Return whether a statement failed because another transaction held its lock for too long."""
    return getattr(error.__cause__, "sqlstate", "") == _LOCK_NOT_AVAILABLE


def _execute_with_lock_timeout(
    execute: Callable[..., Any],
    statement: str,
    parameters: Any,
    many: bool,
    context: dict[str, Any],
    *,
    seconds: float,
) -> Any:
    connection = context["connection"]
    if connection.connection.info.transaction_status != _IDLE:
        return execute(statement, parameters, many, context)
    # In autocommit, the setting needs a transaction for this one statement.
    with (
        transaction.atomic(using=connection.alias) if connection.get_autocommit() else nullcontext()
    ):
        with connection.wrap_database_errors, connection.connection.cursor() as cursor:
            # For this transaction only: a pooler assigns the connection to other clients
            # afterwards.
            cursor.execute(
                "SELECT set_config('lock_timeout', %s, true)", [str(round(seconds * 1000))]
            )
        return execute(statement, parameters, many, context)


def update(
    model: type[models.Model],
    *keys: Any,
    using: str,
    returning: str = "",
    null: str = "",
    is_durable: bool = True,
    **values: Any,
) -> Any:
    """Set fields of the rows with these primary keys by one statement; return whether there is such
    a row.

    returning: SQL expressions over the new row, whose values are returned instead; None if there is
    no such row.
    null: a field that must be NULL, or there is no such row. is_durable: False: a crash may undo
    it, because on PostgreSQL, outside a transaction, the update returns before it is on disk.
    """
    connection = connections[using]
    fields: list[Any] = [model._meta.get_field(name) for name in values]
    pk: Any = model._meta.pk
    quote = connection.ops.quote_name
    sets = ", ".join(f"{quote(field.column)} = %s" for field in fields)

    if is_durable:
        source = ""
    else:
        source = _build_async_commit_clause("FROM", connection)

    condition, key_parameters = _build_key_condition(pk, keys, connection)
    statement = f"UPDATE {quote(model._meta.db_table)} SET {sets}{source} WHERE {condition}"  # noqa: S608 -- as above
    if null:
        null_field: Any = model._meta.get_field(null)
        statement += f" AND {quote(null_field.column)} IS NULL"
    if returning:
        statement += f" RETURNING {returning}"
    parameters = []
    for f, value in zip(fields, values.values(), strict=True):
        parameters.append(f.get_db_prep_save(value, connection))
    with connection.cursor() as cursor:
        cursor.execute(statement, [*parameters, *key_parameters])
        if returning:
            return cursor.fetchone()
        return bool(cursor.rowcount)


def fetch(
    build: Callable[..., models.QuerySet[Any]], parameters: Sequence[Any], *, using: str
) -> list[Any]:
    """Return the rows of build(*parameters), which Django compiles to SQL once for each small
    number of parameters.

    On SQLite, only if all of them are texts: it stores other types as texts.
    build: a function that always returns the same query set of instances or tuples, with all
    parameters in this order.
    Raises: ValueError if the query set has other parameters.
    """
    connection = connections[using]
    has_other_types = connection.vendor == "sqlite" and not all(
        isinstance(value, str) for value in parameters
    )
    if has_other_types or not 0 < len(parameters) <= _MAX_LISTED_VALUES:
        return list(build(*parameters).using(using))
    key = build, len(parameters), using, connection.vendor
    if key not in _compiled:
        queryset = build(*parameters).using(using)
        compiler = queryset.query.get_compiler(connection=connection)
        statement, compiled_parameters = compiler.as_sql()
        if list(compiled_parameters) != list(parameters):
            raise ValueError("The parameters of a compiled query set are not its own.")
        compiler.connection = None
        _compiled[key] = queryset, compiler, statement
    queryset, compiler, statement = _compiled[key]
    # Copies, because other threads use them with their own connections.
    compiler = copy.copy(compiler)
    rows = queryset.all()
    compiler.connection = connection
    compiler.as_sql = lambda: (statement, tuple(parameters))
    rows.query.get_compiler = lambda *_, **__: compiler  # type: ignore[method-assign]  # of this copy only
    return list(rows)


def delete(model: type[models.Model], keys: Sequence[Any], *, using: str) -> None:
    """Delete the rows with these primary keys, at least one. Requires: a crash may restore them.

    On PostgreSQL, outside a transaction, the deletion returns before it is on disk.
    """
    connection = connections[using]
    key: Any = model._meta.pk
    table = connection.ops.quote_name(model._meta.db_table)
    hint = _build_async_commit_clause("USING", connection)
    condition, parameters = _build_key_condition(key, keys, connection)
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {table}{hint} WHERE {condition}", parameters)  # noqa: S608 -- the model's names


def _build_key_condition(pk: Any, keys: Sequence[Any], connection: Any) -> tuple[str, list[Any]]:
    """Return the condition that a row has one of these primary keys, and its parameters."""
    column = connection.ops.quote_name(pk.column)
    if connection.vendor == "postgresql" and len(keys) > _MAX_LISTED_VALUES:
        return f"{column} = ANY(%s)", [list(keys)]
    parameters = [pk.get_db_prep_value(key, connection) for key in keys]
    return f"{column} IN ({build_placeholders(len(keys))})", parameters


class _AnyOf(In):
    prepare_rhs = False
    """psycopg takes keys as they are, and for other databases `get_db_prep_value` prepares them."""

    def as_postgresql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        column, parameters = self.process_lhs(compiler, connection)
        return f"{column} = ANY(%s)", [*parameters, self.rhs]


def any_of(name: str, values: Sequence[Any]) -> Any:
    """Return the condition of a query set that a field has one of these values.

    PostgreSQL gets many values as one array, because it takes longer to read a list of them than to
    find the rows.
    """
    if len(values) <= _MAX_LISTED_VALUES:
        return Q(**{f"{name}__in": values})
    return _AnyOf(F(name), list(values))


def _build_async_commit_clause(keyword: str, connection: Any) -> str:
    is_alone = connection.vendor == "postgresql" and connection.get_autocommit()
    if is_alone:
        return f" {keyword} {_ASYNC_COMMIT_SOURCE}"
    return ""


def delete_in_batches(rows: models.QuerySet[Any], *, batch_size: int = 1000) -> int:
    """Delete rows, each batch in its own transaction, and return their number. Several workers
    share the work.
    """
    deleted = 0
    while True:
        with transaction.atomic(using=rows.db):
            pks = list(
                rows.select_for_update(skip_locked=True).values_list("pk", flat=True)[:batch_size]
            )
            deleted += len(pks)
            if pks:
                rows.filter(pk__in=pks).delete()
        if len(pks) < batch_size:
            return deleted


def build_placeholders(count: int) -> str:
    """Return the placeholders of a list of values."""
    return ", ".join(["%s"] * count)
