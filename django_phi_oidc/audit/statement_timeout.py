"""A time limit that PostgreSQL sets to the statements of one transaction."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from django.db import connections, transaction


@contextmanager
def statement_timeout(seconds: float, *, using: str) -> Iterator[None]:
    """Open a transaction in which each statement fails after that time, on PostgreSQL.

    Raises: RuntimeError if a transaction is open (except that of Django's TestCase).
    """
    connection = connections[using]
    with transaction.atomic(using=using, durable=True):
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                # For this transaction only: a pooler assigns the connection to other clients
                # afterwards.
                cursor.execute(
                    "SELECT set_config('statement_timeout', %s, true)", [str(round(seconds * 1000))]
                )
        yield


def read_statement_timeout(seconds: float, *, using: str) -> AbstractContextManager[None]:
    """Return `statement_timeout` for reads: nothing on SQLite, where each transaction takes the
    write lock.
    """
    if connections[using].vendor == "postgresql":
        return statement_timeout(seconds, using=using)
    return nullcontext()
