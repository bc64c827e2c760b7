"""Empty only the tables that a test wrote to.

Django truncates every table and recreates the content types and permissions, once per alias, which took a third of the
time of a run on PostgreSQL.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from django.db import connections, transaction
from django.test import TransactionTestCase

STAYING = ("django_content_type", "auth_permission")
"""Tables that `migrate` fills. If a test has changed them, Django's flush recreates the rows."""
NEVER = "django_migrations"


def instead_of_flushing(fresh: dict[str, list[tuple[Any, ...]]], flush: Callable[[TransactionTestCase], None]) -> Any:
    """Return a `_fixture_teardown`. fresh: by alias, the rows of staying() before the first test; updated."""

    def teardown(case: TransactionTestCase) -> None:
        if case.available_apps is not None or case.serialized_rollback:
            flush(case)
            return
        aliases = type(case)._databases_names(include_mirrors=False)
        for alias in aliases:
            empty(alias)
        if any(staying(alias) != fresh[alias] for alias in aliases):
            flush(case)
            fresh.update({alias: staying(alias) for alias in fresh})

    return teardown


def empty(alias: str) -> None:
    """Delete all rows except those in STAYING."""
    connection = connections[alias]
    quote = connection.ops.quote_name
    tables = sorted({*_tables(alias)} - {*STAYING, NEVER})
    holding = " UNION ALL ".join(f"SELECT '{name}' WHERE EXISTS (SELECT 1 FROM {quote(name)})" for name in tables)
    with connection.cursor() as cursor:
        cursor.execute(holding)
        held = [name for (name,) in cursor.fetchall()]
    if held:
        # Foreign keys are deferred to the end of the transaction, so the order of the tables does not matter.
        with transaction.atomic(using=alias), connection.cursor() as cursor:
            for name in held:
                cursor.execute(f"DELETE FROM {quote(name)}")


def staying(alias: str) -> list[tuple[Any, ...]]:
    """Return the rows of the tables of STAYING."""
    found: list[tuple[Any, ...]] = []
    for name in sorted({*STAYING} & {*_tables(alias)}):
        with connections[alias].cursor() as cursor:
            cursor.execute(f"SELECT * FROM {connections[alias].ops.quote_name(name)} ORDER BY id")
            found += cursor.fetchall()
    return found


@cache
def _tables(alias: str) -> list[str]:
    return connections[alias].introspection.django_table_names(only_existing=True, include_views=False)
