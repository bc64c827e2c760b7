"""INSERTs without the overhead of query sets: no signals, no key read back, no extra
transaction.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple, cast

from django.db import IntegrityError, connections, models, transaction

from .sql import build_placeholders

_MIN_COPIED_ROWS = 50
"""From so many rows on, PostgreSQL reads them by COPY, which takes a third of the time of an
INSERT.
"""
_waiting_inserts: ContextVar[tuple[str, list["_Insert"]]] = ContextVar(
    "django_phi_oidc._internal.inserts", default=("", [])
)
"""The alias of the innermost block of `combine_inserts`, and its INSERTs that were not sent yet."""


class RowNotStored(IntegrityError):
    """An INSERT succeeded and stored fewer rows than it was given: a trigger or a rule of the table
    drops them.
    """


def require_rows(stored_count: int, count: int) -> None:
    """Raises: RowNotStored if an INSERT stored another number of rows than it was given."""
    if stored_count != count:
        raise RowNotStored("The database accepted rows and did not store them.")


def insert(
    rows: Sequence[models.Model],
    *,
    using: str,
    unique: Sequence[str] = (),
    replaced: Sequence[str] = (),
) -> None:
    """Insert rows of one model (at least one), all or none, by one statement unless it has too many
    parameters.

    On PostgreSQL, many rows are inserted by COPY: the same privilege, triggers and constraints, but
    no execute wrapper. In a block of `combine_inserts`, the statement may be sent later.

    unique: columns with a unique index. A stored row with the same values in them gets the new
    values of the columns in replaced; without unique, it is an IntegrityError. The database assigns
    an automatic key.
    Raises: RowNotStored, and then, outside a transaction, some may be stored.
    """
    connection = connections[using]
    model = type(rows[0])
    fields = _list_inserted_fields(model)
    columns = (tuple(unique), tuple(replaced))
    most = (connection.features.max_query_params or len(rows) * len(fields)) // len(fields)
    parts = []
    for start in range(0, len(rows), most):
        parts.append(rows[start : start + most])
    frame: AbstractContextManager[Any]
    if len(parts) > 1:
        frame = transaction.atomic(using=using, savepoint=False)
    else:
        frame = nullcontext()

    with frame:
        for part in parts:
            values = list(
                zip(*(_prepare_column(field, part, connection) for field in fields), strict=True)
            )
            if connection.vendor == "postgresql" and len(part) >= _MIN_COPIED_ROWS and not unique:
                _copy(model, values, using=using)
            else:
                statement = _build_insert(model, using, len(part), *columns)
                _send_or_wait(
                    _Insert(statement, list(chain.from_iterable(values)), len(part)), using=using
                )
    for row in rows:
        row._state.adding = False
        row._state.db = using


class _Insert(NamedTuple):
    statement: str
    parameters: Sequence[Any]
    row_count: int


@contextmanager
def combine_inserts(*, using: str) -> Iterator[None]:
    """Send consecutive statements of `insert` in this block together, on PostgreSQL: each would be
    a round trip.

    They are sent before the next other statement, or at the end of the block, and raise their
    errors then: the block must not handle an IntegrityError of another statement. Requires: an open
    transaction, which is rolled back if an exception leaves the block, and no other such block.
    """
    connection: Any = connections[using]
    # Several statements at once can't have parameters that the server binds.
    if connection.vendor != "postgresql" or not issubclass(
        connection.connection.cursor_factory, connection.Database.ClientCursor
    ):
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
    column = []
    for row in rows:
        column.append(field.get_db_prep_save(field.pre_save(row, True), connection))
    return column


class CopiedRows(NamedTuple):
    """Rows to insert with values of rows of another model."""

    keys: Sequence[tuple[Any, Any]]
    """The primary key of each new row, and that of the row whose values it gets."""
    columns: Mapping[str, str]
    """The fields of the new row that get a value, each with the field of the other row that has
    it.
    """
    values: Mapping[str, Any]
    """The fields that have the same value in all of these rows."""


def insert_copies(
    model: type[models.Model],
    parts: Sequence[CopiedRows],
    *,
    source: type[models.Model],
    using: str,
    returning: bool,
) -> list[Any]:
    """Insert rows with values of rows of source by one statement: these values do not pass through
    this process.

    A field that only the other part names is NULL, and one that no part names has the default of
    the database.
    returning: return the new rows, in any order. Requires: one part or two, of which one has keys;
    no value is None.
    Raises: RowNotStored.
    """
    connection = connections[using]
    quote = connection.ops.quote_name
    parts = [part for part in parts if part.keys]
    names = list(dict.fromkeys(name for part in parts for name in (*part.columns, *part.values)))
    target = cast("Any", model._meta)
    origin = cast("Any", source._meta)
    fields: dict[str, Any] = {
        target.pk.name: target.pk,
        **{name: target.get_field(name) for name in names},
    }
    selects = []
    parameters = []
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
            for new, old in part.keys:
                for pair in ((target.pk, new), (origin.pk, old)):
                    prepared.append(pair)
            key_parameters = []
        selects.append(
            f"SELECT new.column1, {', '.join(expressions.values())} FROM {table}"  # noqa: S608 -- the models' names
            f" JOIN {quote(origin.db_table)} AS source ON "
            f"source.{quote(origin.pk.column)} = new.column2"
        )
        parameters += [
            field.get_db_prep_save(value, connection) for field, value in prepared
        ] + key_parameters
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


@lru_cache(maxsize=64)
def _list_inserted_fields(model: type[models.Model]) -> Sequence[Any]:
    inserted_fields = []
    for field in model._meta.concrete_fields:
        if not isinstance(field, models.AutoField):
            inserted_fields.append(field)
    return inserted_fields


@lru_cache(maxsize=64)
def _build_insert(
    model: type[models.Model],
    using: str,
    row_count: int,
    unique: Sequence[str],
    replaced: Sequence[str],
) -> str:
    quote = connections[using].ops.quote_name
    fields = _list_inserted_fields(model)
    table = quote(model._meta.db_table)
    columns = ", ".join(quote(field.column) for field in fields)
    places = ", ".join([f"({build_placeholders(len(fields))})"] * row_count)
    statement = f"INSERT INTO {table} ({columns}) VALUES {places}"  # noqa: S608 -- the model's names
    if not unique:
        return statement
    sets = ", ".join(f"{quote(column)} = EXCLUDED.{quote(column)}" for column in replaced)
    return f"{statement} ON CONFLICT ({', '.join(map(quote, unique))}) DO UPDATE SET {sets}"


@lru_cache(maxsize=64)
def _build_copy(model: type[models.Model]) -> str:
    columns = ", ".join(f'"{field.column}"' for field in _list_inserted_fields(model))
    return f'COPY "{model._meta.db_table}" ({columns}) FROM STDIN'
