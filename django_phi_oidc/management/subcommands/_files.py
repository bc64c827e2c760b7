"""Files that a command writes secrets to, and CSV files that it reads."""

import os
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from django.core.management.base import CommandError

from ..._internal.csv_tables import CSVTable, CSVTableError, parse_csv_table


@contextmanager
def create_private_file(path: Path) -> Iterator[TextIO]:
    """Open a new file that only its owner can read. It is deleted again if the block fails.

    Raises: OSError, also when the file exists.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield file
    except BaseException:
        path.unlink()
        raise


def read_csv_table(
    path: str, *, required: Sequence[str], reserved: Collection[str] = ()
) -> tuple[Sequence[str], Iterator[tuple[int, list[str]]]]:
    """Return the header and the records of a CSV file as `parse_csv_table` does.

    Raises: CommandError if the file cannot be read or parsed.
    """
    try:
        if path == "-":
            content = sys.stdin.buffer.read()
        else:
            content = Path(path).read_bytes()
        table = parse_csv_table(content, required=required, reserved=reserved)
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.") from error
    except CSVTableError as error:
        raise CommandError(str(error)) from error
    return table.header, _iterate_rows(table)


def _iterate_rows(table: CSVTable) -> Iterator[tuple[int, list[str]]]:
    try:
        yield from table.rows
    except CSVTableError as error:
        raise CommandError(str(error)) from error
