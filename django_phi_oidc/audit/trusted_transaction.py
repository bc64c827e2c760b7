"""Transactions of the audit database that use only functions and operators of PostgreSQL itself,
and read only columns with the types of the migrations.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connections, transaction

from .errors import ColumnsAltered
from .router import AUDIT_ALIAS
from .table_columns import COLUMN_TYPES, list_altered_columns

# By name: the test runner imports this module before Django loads models.
_EVENT_TABLE = "phi_oidc_audit_auditevent"
# A column cannot be changed until the end of the transaction.
_LOCK_SQL = f"LOCK TABLE {', '.join(COLUMN_TYPES)} IN ACCESS SHARE MODE"
# One index look-up per row: a plan that sorts or hashes the whole table for some of its rows would
# spill to disk.
_DISABLED_PLANNER_OPTIONS = (
    "enable_hashjoin",
    "enable_mergejoin",
    "enable_bitmapscan",
    "enable_seqscan",
    "enable_sort",
    "jit",
)
# Operators and types of pg_catalog come first, so that others with the same name and arguments
# replace none of them.
_SEARCH_PATH_SQL = f"""
    pg_catalog.set_config('search_path', pg_catalog.concat('pg_catalog, ', (
        SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_namespace n
        JOIN pg_catalog.pg_class c ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
        WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass('{_EVENT_TABLE}')), ', pg_temp'), true)"""  # noqa: E501, S608


@contextmanager
def trusted_transaction(
    *, force_index_lookups: bool = False, allow_altered_columns: bool = False
) -> Iterator[None]:
    """Open a transaction of the audit database that uses only functions and operators of PostgreSQL
    itself, and reads only columns with the types of the migrations.

    An administrator can put a schema before `pg_catalog` (ALTER DATABASE … SET search_path). A
    function in that schema could return the sealed values for an altered row. NOT defended:
    functions that were replaced in `pg_catalog` itself.
    allow_altered_columns: only to report them. Raises: ColumnsAltered.
    """
    connection = connections[AUDIT_ALIAS]
    if connection.vendor != "postgresql":
        # SQLite has no schemas, and a transaction would take the write lock.
        yield
        return
    settings = [_SEARCH_PATH_SQL]
    if force_index_lookups:
        options = dict.fromkeys(_DISABLED_PLANNER_OPTIONS, "off") | {
            "max_parallel_workers_per_gather": "0"
        }
        for name, value in options.items():
            settings.append(f"pg_catalog.set_config('{name}', '{value}', true)")

    with transaction.atomic(using=AUDIT_ALIAS):
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {', '.join(settings)}; {_LOCK_SQL}")
        if not allow_altered_columns:
            first = next(list_altered_columns(), None)
            if first is not None:
                raise ColumnsAltered(f"{first}.")
        yield
