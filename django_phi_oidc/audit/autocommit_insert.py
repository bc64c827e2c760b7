"""INSERT of one event in a transaction of its own, at half the cost of Django's."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from django.db import connections, models

from .._internal.inserts import require_rows
from .._internal.sql import build_placeholders


def insert_autocommit(model: type[models.Model], values: Sequence[Any], *, using: str) -> bool:
    """Insert a row in its own transaction if possible; return False if nothing was done.

    It is possible on PostgreSQL, in autocommit, without wrappers or logs of Django's cursors. The
    driver binds the values on the server, and prepares the statement if the alias has
    `prepare_threshold` in its OPTIONS: half the cost.
    values: of all concrete fields, in order, of types that the driver maps to the columns. Raises:
    RowNotStored.
    """
    connection: Any = connections[using]
    if (
        connection.vendor != "postgresql"
        or connection.execute_wrappers
        or connection.queries_logged
    ):
        return False
    connection.close_if_health_check_failed()
    if not connection.get_autocommit():
        return False
    with connection.wrap_database_errors:
        cursor = connection.Database.Cursor(connection.connection)
        cursor.execute(_build_prepared_insert(model), values)
    require_rows(cursor.rowcount, 1)
    return True


@lru_cache(maxsize=64)
def _build_prepared_insert(model: type[models.Model]) -> bytes:
    columns = ", ".join(f'"{field.column}"' for field in model._meta.concrete_fields)
    places = build_placeholders(len(model._meta.concrete_fields))
    return (f'INSERT INTO "{model._meta.db_table}" ({columns}) VALUES ({places})').encode()  # noqa: S608 -- as above
