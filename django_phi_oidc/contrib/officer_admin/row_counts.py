"""Numbers of rows, counted together."""

from collections.abc import Sequence
from typing import Any

from django.db import connections, models


def count_rows(querysets: Sequence[models.QuerySet[Any]], *, limit: int, using: str) -> list[int]:
    """Return how many rows each queryset has, at most limit, by one SELECT.

    The order of a queryset is kept, so that the database can use an index with that order instead
    of the table.
    """
    if not querysets:
        return []
    compiled = [part.values("pk")[:limit].query.get_compiler(using).as_sql() for part in querysets]
    counted = ", ".join(f"(SELECT COUNT(*) FROM ({sql}) AS part)" for sql, _ in compiled)  # noqa: S608 -- Django's own
    with connections[using].cursor() as cursor:
        cursor.execute(
            f"SELECT {counted}", [value for _, parameters in compiled for value in parameters]
        )
        return list(cursor.fetchone())
