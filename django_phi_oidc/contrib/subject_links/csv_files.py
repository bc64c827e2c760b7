"""CSV files that a command reads."""

import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from django.core.management.base import CommandError

from .csv_tables import CSVTable, CSVTableError, parse_csv_table


def read_csv_file(path: str) -> bytes:
    """Return the content of a file; -: of standard input. Raises: CommandError."""
    try:
        if path == "-":
            return sys.stdin.buffer.read()
        return Path(path).read_bytes()
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.") from error


def read_csv_table(
    path: str, *, required: Sequence[str], reserved: Collection[str] = ()
) -> tuple[Sequence[str], Iterator[tuple[int, list[str]]]]:
    """Return the header and the records of a CSV file as `parse_csv_table` does.

    Raises: CommandError if the file cannot be read or parsed.
    """
    content = read_csv_file(path)
    try:
        table = parse_csv_table(content, required=required, reserved=reserved)
    except CSVTableError as error:
        raise CommandError(str(error)) from error
    return table.header, _iterate_rows(table)


def _iterate_rows(table: CSVTable) -> Iterator[tuple[int, list[str]]]:
    try:
        yield from table.rows
    except CSVTableError as error:
        raise CommandError(str(error)) from error
