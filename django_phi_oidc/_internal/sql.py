"""Single SQL statements without the overhead of query sets: no signals, no key read back, no extra transaction."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from functools import lru_cache, partial
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

from django.db import IntegrityError, OperationalError, connections, models, transaction
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
_PLAIN_FIELDS = (
    models.CharField,
    models.TextField,
    models.UUIDField,
    models.DateTimeField,
    models.BinaryField,
    models.PositiveIntegerField,
)
"""Those whose values psycopg takes as they are. Their preparation by Django would take longer than sending them."""
_MIN_COPIED_ROWS = 50
"""From so many rows on, PostgreSQL reads them by COPY, which takes a third of the time of an INSERT."""
_MAX_COMPILED_PARAMETERS = 8
_MAX_LISTED_VALUES = _MAX_COMPILED_PARAMETERS
"""From more values on, PostgreSQL gets an array."""
_compiled: dict[Any, tuple[models.QuerySet[Any], Any, str]] = {}
"""The query sets of `fetch` with their compilers, which have no connection, and SQL."""
_waiting_inserts: ContextVar[tuple[str, list["_Insert"]]] = ContextVar(
    "django_phi_oidc._internal.sql", default=("", [])
)
"""The alias of the innermost block of `combine_inserts`, and its INSERTs that were not sent yet."""
_cursors: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""The driver's cursor for `insert_autocommit` by connection: a new cursor has to look up each type again."""


def durable(using: str) -> AbstractContextManager[None]:
    """Return a block in which one statement is committed when it returns, even if the caller's work is rolled back.

    In autocommit the database does this itself; BEGIN and COMMIT would be two more round trips.
    Raises: RuntimeError if a transaction is open (except that of Django's TestCase), or autocommit is off.
    """
    connection = connections[using]
    if connection.get_autocommit():
        return nullcontext()
    if not connection.in_atomic_block:
        raise RuntimeError("A durable statement needs a connection in autocommit.")
    return transaction.atomic(using=using, durable=True)


def savepoint() -> AbstractContextManager[None]:
    """Return a block after whose DatabaseError an open transaction of the default database can be committed.

    PostgreSQL aborts a transaction after an error, except back to a savepoint. Outside a transaction, nothing is done.
    """
    return transaction.atomic() if transaction.get_connection().in_atomic_block else nullcontext()


@contextmanager
def statement_timeout(seconds: float, *, using: str) -> Iterator[None]:
    """Open a transaction in which each statement fails after that time, on PostgreSQL.

    Raises: RuntimeError if a transaction is open (except that of Django's TestCase).
    """
    connection = connections[using]
    with transaction.atomic(using=using, durable=True):
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                # For this transaction only: a pooler assigns the connection to other clients afterwards.
                cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(round(seconds * 1000))])
        yield


@contextmanager
def limit_lock_waits(seconds: float) -> Iterator[None]:
    """Let each statement of this thread fail that waits for a lock for so long, on the PostgreSQL connections.

    It applies to transactions that begin inside the block. An open transaction is not changed.
    """
    with ExitStack() as stack:
        for connection in connections.all():
            if connection.vendor == "postgresql":
                stack.enter_context(connection.execute_wrapper(partial(_execute_with_lock_timeout, seconds=seconds)))
        yield


def is_lock_timeout(error: OperationalError) -> bool:
    """Return whether a statement failed because another transaction held its lock for too long."""
    return getattr(error.__cause__, "sqlstate", "") == _LOCK_NOT_AVAILABLE


def _execute_with_lock_timeout(
    execute: Callable[..., Any], statement: str, parameters: Any, many: bool, context: dict[str, Any], *, seconds: float
) -> Any:
    connection = context["connection"]
    if connection.connection.info.transaction_status != _IDLE:
        return execute(statement, parameters, many, context)
    # In autocommit, the setting needs a transaction for this one statement.
    with transaction.atomic(using=connection.alias) if connection.get_autocommit() else nullcontext():
        with connection.wrap_database_errors, connection.connection.cursor() as cursor:
            # For this transaction only: a pooler assigns the connection to other clients afterwards.
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", [str(round(seconds * 1000))])
        return execute(statement, parameters, many, context)


def read_statement_timeout(seconds: float, *, using: str) -> AbstractContextManager[None]:
    """Return `statement_timeout` for reads: nothing on SQLite, where each transaction takes the write lock."""
    return statement_timeout(seconds, using=using) if connections[using].vendor == "postgresql" else nullcontext()


class RowNotStored(IntegrityError):
    """An INSERT succeeded and stored fewer rows than it was given: a trigger or a rule of the table drops them."""


def require_rows(stored_count: int, count: int) -> None:
    """Raises: RowNotStored if an INSERT stored another number of rows than it was given."""
    if stored_count != count:
        raise RowNotStored("The database accepted rows and did not store them.")


def insert(
    rows: Sequence[models.Model], *, using: str, unique: Sequence[str] = (), replaced: Sequence[str] = ()
) -> None:
    """Insert rows of one model (at least one), all or none, by one statement unless it has too many parameters.

    On PostgreSQL, many rows are inserted by COPY: the same privilege, triggers and constraints, but no execute wrapper.
    In a block of `combine_inserts`, the statement may be sent later.

    unique: columns with a unique index. A stored row with the same values in them gets the new values of the columns
    in replaced; without unique, it is an IntegrityError. The database assigns an automatic key.
    Raises: RowNotStored, and then, outside a transaction, some may be stored.
    """
    connection, model = connections[using], type(rows[0])
    fields, columns = _list_inserted_fields(model), (tuple(unique), tuple(replaced))
    most = (connection.features.max_query_params or len(rows) * len(fields)) // len(fields)
    parts = [rows[start : start + most] for start in range(0, len(rows), most)]
    frame = transaction.atomic(using=using, savepoint=False) if len(parts) > 1 else nullcontext()
    with frame:
        for part in parts:
            values = list(zip(*(_prepare_column(field, part, connection) for field in fields), strict=True))
            if connection.vendor == "postgresql" and len(part) >= _MIN_COPIED_ROWS and not unique:
                _copy(model, values, using=using)
            else:
                statement = _build_insert(model, using, len(part), *columns)
                _send_or_wait(_Insert(statement, list(chain.from_iterable(values)), len(part)), using=using)
    for row in rows:
        row._state.adding, row._state.db = False, using


class _Insert(NamedTuple):
    statement: str
    parameters: Sequence[Any]
    row_count: int


@contextmanager
def combine_inserts(*, using: str) -> Iterator[None]:
    """Send consecutive statements of `insert` in this block together, on PostgreSQL: each would be a round trip.

    They are sent before the next other statement, or at the end of the block, and raise their errors then.
    Requires: an open transaction, which is rolled back if an exception leaves the block.
    """
    connection: Any = connections[using]
    if connection.vendor != "postgresql" or connection.features.uses_server_side_binding:
        yield
        return

    def send_waiting_first(execute: Callable[..., Any], *arguments: Any) -> Any:
        _send_waiting(using=using)
        return execute(*arguments)

    token = _waiting_inserts.set((using, []))
    try:
        with connection.execute_wrapper(send_waiting_first):
            yield
        _send_waiting(using=using)
    finally:
        _waiting_inserts.reset(token)


def _send_or_wait(item: _Insert, *, using: str) -> None:
    alias, waiting = _waiting_inserts.get()
    if alias == using:
        waiting.append(item)
    else:
        _send([item], using=using)


def _send_waiting(*, using: str) -> None:
    alias, waiting = _waiting_inserts.get()
    if alias == using and waiting:
        items = list(waiting)
        waiting.clear()
        _send(items, using=using)


def _send(items: Sequence[_Insert], *, using: str) -> None:
    with connections[using].cursor() as cursor:
        statement = "; ".join(item.statement for item in items)
        cursor.execute(statement, list(chain.from_iterable(item.parameters for item in items)))
        for item in items:
            require_rows(cursor.rowcount, item.row_count)
            if item is not items[-1]:
                cursor.nextset()


def _copy(model: type[models.Model], values: Sequence[Sequence[Any]], *, using: str) -> None:
    _send_waiting(using=using)
    connection = connections[using]
    with connection.cursor() as cursor:
        with connection.wrap_database_errors, cursor.copy(_build_copy(model)) as copied:
            for value in values:
                copied.write_row(value)
        require_rows(cursor.rowcount, len(values))


def _prepare_column(field: Any, rows: Sequence[models.Model], connection: Any) -> Sequence[Any]:
    """Return the values of a field as the driver takes them."""
    if connection.vendor == "postgresql" and type(field) in _PLAIN_FIELDS:
        return list(map(attrgetter(field.attname), rows))
    return [field.get_db_prep_save(field.pre_save(row, True), connection) for row in rows]


class CopiedRows(NamedTuple):
    """Rows to insert with values of rows of another model."""

    keys: Sequence[tuple[Any, Any]]
    """The primary key of each new row, and that of the row whose values it gets."""
    columns: Mapping[str, str]
    """The fields of the new row that get a value, each with the field of the other row that has it."""
    values: Mapping[str, Any]
    """The fields that have the same value in all of these rows."""


def insert_copies(
    model: type[models.Model], parts: Sequence[CopiedRows], *, source: type[models.Model], using: str, returning: bool
) -> list[Any]:
    """Insert rows with values of rows of source by one statement: these values do not pass through this process.

    A field that only other parts name is NULL, and one that no part names has the default of the database.
    returning: return the new rows, in any order. Requires: a part has keys. Raises: RowNotStored.
    """
    connection = connections[using]
    quote = connection.ops.quote_name
    parts = [part for part in parts if part.keys]
    names = list(dict.fromkeys(name for part in parts for name in (*part.columns, *part.values)))
    target, origin = cast("Any", model._meta), cast("Any", source._meta)
    fields: dict[str, Any] = {target.pk.name: target.pk, **{name: target.get_field(name) for name in names}}
    selects, parameters = [], []
    for part in parts:
        expressions = dict.fromkeys(names, "NULL") | dict.fromkeys(part.values, "%s")
        for name, column in part.columns.items():
            expressions[name] = f"source.{quote(origin.get_field(column).column)}"
        prepared = [(fields[name], part.values[name]) for name in names if name in part.values]
        if connection.vendor == "postgresql":
            arrays = f"%s::{target.pk.db_type(connection)}[], %s::{origin.pk.db_type(connection)}[]"
            table = f"unnest({arrays}) AS new(column1, column2)"
            key_parameters = [list(keys) for keys in zip(*part.keys, strict=True)]
        else:
            table = f"(VALUES {', '.join(['(%s, %s)'] * len(part.keys))}) AS new"
            prepared += [pair for new, old in part.keys for pair in ((target.pk, new), (origin.pk, old))]
            key_parameters = []
        selects.append(
            f"SELECT new.column1, {', '.join(expressions.values())} FROM {table}"  # noqa: S608 -- the models' names
            f" JOIN {quote(origin.db_table)} AS source ON source.{quote(origin.pk.column)} = new.column2"
        )
        parameters += [field.get_db_prep_save(value, connection) for field, value in prepared] + key_parameters
    columns = ", ".join(quote(field.column) for field in fields.values())
    statement = f"INSERT INTO {quote(target.db_table)} ({columns}) {' UNION ALL '.join(selects)}"
    count = sum(len(part.keys) for part in parts)
    if returning:
        rows = list(model._base_manager.raw(f"{statement} RETURNING *", parameters, using=using))
        require_rows(len(rows), count)
        return rows
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        require_rows(cursor.rowcount, count)
    return []


def insert_autocommit(model: type[models.Model], values: Sequence[Any], *, using: str) -> bool:
    """Insert a row in its own transaction if possible; return False if nothing was done.

    It is possible on PostgreSQL, in autocommit, without wrappers or logs of Django's cursors. The driver binds the
    values on the server, and prepares the statement if the alias has `prepare_threshold` in its OPTIONS: half the cost.
    values: of all concrete fields, in order, of types that the driver maps to the columns. Raises: RowNotStored.
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
    require_rows(cursor.rowcount, 1)
    return True


def update(
    model: type[models.Model],
    *keys: Any,
    using: str,
    returning: str = "",
    null: str = "",
    is_durable: bool = True,
    **values: Any,
) -> Any:
    """Set fields of the rows with these primary keys by one statement; return whether there is such a row.

    returning: SQL expressions over the new row, whose values are returned instead; None if there is no such row.
    null: a field that must be NULL, or there is no such row. is_durable: False: a crash may undo it, because on
    PostgreSQL, outside a transaction, the update returns before it is on disk.
    """
    connection = connections[using]
    fields: list[Any] = [model._meta.get_field(name) for name in values]
    pk: Any = model._meta.pk
    quote = connection.ops.quote_name
    sets = ", ".join(f"{quote(field.column)} = %s" for field in fields)
    source = "" if is_durable else _build_async_commit_clause("FROM", connection)
    condition, key_parameters = _build_key_condition(pk, keys, connection)
    statement = f"UPDATE {quote(model._meta.db_table)} SET {sets}{source} WHERE {condition}"  # noqa: S608 -- as above
    if null:
        null_field: Any = model._meta.get_field(null)
        statement += f" AND {quote(null_field.column)} IS NULL"
    if returning:
        statement += f" RETURNING {returning}"
    parameters = [f.get_db_prep_save(value, connection) for f, value in zip(fields, values.values(), strict=True)]
    with connection.cursor() as cursor:
        cursor.execute(statement, [*parameters, *key_parameters])
        if returning:
            return cursor.fetchone()
        return bool(cursor.rowcount)


def has_row(model: type[models.Model], keys: Sequence[Any], *, using: str, **least: Any) -> bool:
    """Return whether a row with one of these primary keys (at least one) has these values in its fields, or greater."""
    connection = connections[using]
    pk: Any = model._meta.pk
    fields: list[Any] = [model._meta.get_field(name) for name in least]
    quote = connection.ops.quote_name
    key_condition, parameters = _build_key_condition(pk, keys, connection)
    conditions = [key_condition, *(f"{quote(field.column)} >= %s" for field in fields)]
    parameters += [f.get_db_prep_value(value, connection) for f, value in zip(fields, least.values(), strict=True)]
    statement = f"SELECT 1 FROM {quote(model._meta.db_table)} WHERE {' AND '.join(conditions)} LIMIT 1"  # noqa: S608 -- as above
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchone() is not None


def fetch(build: Callable[..., models.QuerySet[Any]], parameters: Sequence[Any], *, using: str) -> list[Any]:
    """Return the rows of build(*parameters), which Django compiles to SQL once for each small number of parameters.

    On SQLite, only if all of them are texts: it stores other types as texts.
    build: a function that always returns the same query set of instances or tuples, with all parameters in this order.
    Raises: ValueError if the query set has other parameters.
    """
    connection = connections[using]
    has_other_types = connection.vendor == "sqlite" and not all(isinstance(value, str) for value in parameters)
    if has_other_types or not 0 < len(parameters) <= _MAX_COMPILED_PARAMETERS:
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
    compiler, rows = copy.copy(compiler), queryset.all()
    compiler.connection, compiler.as_sql = connection, lambda: (statement, tuple(parameters))
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
    return f"{column} IN ({_build_placeholders(len(keys))})", parameters


class _AnyOf(In):
    def as_postgresql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        column, parameters = self.process_lhs(compiler, connection)
        return f"{column} = ANY(%s)", [*parameters, self.rhs]


def any_of(name: str, values: Sequence[Any]) -> Any:
    """Return the condition of a query set that a field has one of these values.

    PostgreSQL gets many values as one array, because it takes longer to read a list of them than to find the rows.
    """
    return Q(**{f"{name}__in": values}) if len(values) <= _MAX_LISTED_VALUES else _AnyOf(F(name), list(values))


def _build_async_commit_clause(keyword: str, connection: Any) -> str:
    is_alone = connection.vendor == "postgresql" and connection.get_autocommit()
    return f" {keyword} {_ASYNC_COMMIT_SOURCE}" if is_alone else ""


def delete_in_batches(rows: models.QuerySet[Any], *, batch_size: int = 1000) -> int:
    """Delete rows, each batch in its own transaction, and return their number. Several workers share the work."""
    deleted = 0
    while True:
        with transaction.atomic(using=rows.db):
            pks = list(rows.select_for_update(skip_locked=True).values_list("pk", flat=True)[:batch_size])
            deleted += len(pks)
            if pks:
                rows.filter(pk__in=pks).delete()
        if len(pks) < batch_size:
            return deleted


def count_rows(querysets: Sequence[models.QuerySet[Any]], *, limit: int, using: str) -> list[int]:
    """Return how many rows each queryset has, at most limit, by one SELECT.

    The order of a queryset is kept, so that the database can use an index with that order instead of the table.
    """
    if not querysets:
        return []
    compiled = [part.values("pk")[:limit].query.get_compiler(using).as_sql() for part in querysets]
    counted = ", ".join(f"(SELECT COUNT(*) FROM ({sql}) AS part)" for sql, _ in compiled)  # noqa: S608 -- Django's own
    with connections[using].cursor() as cursor:
        cursor.execute(f"SELECT {counted}", [value for _, parameters in compiled for value in parameters])
        return list(cursor.fetchone())


@lru_cache(maxsize=64)
def _list_inserted_fields(model: type[models.Model]) -> Sequence[Any]:
    return [field for field in model._meta.concrete_fields if not isinstance(field, models.AutoField)]


@lru_cache(maxsize=64)
def _build_insert(
    model: type[models.Model], using: str, row_count: int, unique: Sequence[str], replaced: Sequence[str]
) -> str:
    quote, fields = connections[using].ops.quote_name, _list_inserted_fields(model)
    table, columns = quote(model._meta.db_table), ", ".join(quote(field.column) for field in fields)
    places = ", ".join([f"({_build_placeholders(len(fields))})"] * row_count)
    statement = f"INSERT INTO {table} ({columns}) VALUES {places}"  # noqa: S608 -- the model's names
    if not unique:
        return statement
    sets = ", ".join(f"{quote(column)} = EXCLUDED.{quote(column)}" for column in replaced)
    return f"{statement} ON CONFLICT ({', '.join(map(quote, unique))}) DO UPDATE SET {sets}"


@lru_cache(maxsize=64)
def _build_copy(model: type[models.Model]) -> str:
    columns = ", ".join(f'"{field.column}"' for field in _list_inserted_fields(model))
    return f'COPY "{model._meta.db_table}" ({columns}) FROM STDIN'


@lru_cache(maxsize=64)
def _build_prepared_insert(model: type[models.Model]) -> bytes:
    columns = ", ".join(f'"{field.column}"' for field in model._meta.concrete_fields)
    places = _build_placeholders(len(model._meta.concrete_fields))
    return f'INSERT INTO "{model._meta.db_table}" ({columns}) VALUES ({places})'.encode()  # noqa: S608 -- as above


def _build_placeholders(count: int) -> str:
    return ", ".join(["%s"] * count)
