"""Parse CSV files that people upload, or that a command reads."""

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext_noop

DELIMITERS = ",;\t"
"""In the order of preference. Excel writes semicolons where the decimal separator is a comma."""
NumberedCells = tuple[int, list[str]]


class CSVTableError(Exception):
    """The file is not a table with these columns; the message repeats no cell."""

    def __init__(self, line_number: int, message: str, **params: Any) -> None:
        """message: a translatable template for params."""
        super().__init__(f"Line {line_number}: {message % params}")
        self.line_number = line_number
        self.message = message
        self.params = params


@dataclass(frozen=True, slots=True, kw_only=True)
class CSVTable:
    """The header, and the records below it with the numbers of their first lines."""

    header: Sequence[str]
    rows: Iterator[NumberedCells]
    """Raises: CSVTableError when a record cannot be parsed. A record may have too few or too many
    cells.
    """
    delimiter: str
    has_bom: bool

    def get_cells(self, cells: Sequence[str]) -> Mapping[str, str]:
        """Return the cells of a record of the right length by column, without surrounding
        spaces.
        """
        return {name: cell.strip() for name, cell in zip(self.header, cells, strict=True)}


def parse_csv_table(
    content: bytes, *, required: Sequence[str], reserved: Collection[str] = ()
) -> CSVTable:
    """Return the table of a UTF-8 file with commas, semicolons or tabs. Empty lines are skipped.

    Raises: CSVTableError if it is not UTF-8, or its header lacks a required column, has a reserved
    one, or two with the same name.
    """
    text = _decode(content)
    # With the wrong delimiter, the header has a single cell.
    for delimiter in DELIMITERS:
        rows = _parse_rows(text, delimiter)
        number, header = next(rows, (1, []))
        header = [name.strip() for name in header]
        if set(required) <= set(header):
            break
    else:
        number, header = next(_parse_rows(text, DELIMITERS[0]), (1, []))
        column = next(name for name in required if name not in header)
        message = gettext_noop(
            "there is no column %(column)s; columns are separated by commas or semicolons."
        )
        raise CSVTableError(number, message, column=column)
    if len(set(header)) < len(header):
        raise CSVTableError(number, gettext_noop("two columns have the same name."))
    if taken := set(reserved).intersection(header):
        message = gettext_noop("the column %(column)s is reserved for the output.")
        raise CSVTableError(number, message, column=min(taken))
    return CSVTable(
        header=header, rows=rows, delimiter=delimiter, has_bom=content.startswith(b"\xef\xbb\xbf")
    )


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CSVTableError(
            content.count(b"\n", 0, error.start) + 1, gettext_noop("not valid UTF-8.")
        ) from error


def _parse_rows(text: str, delimiter: str) -> Iterator[NumberedCells]:
    """Yield the first line number and the cells of each record."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = 1
    try:
        for cells in reader:
            if any(map(str.strip, cells)):
                yield number, cells
            number = reader.line_num + 1
    except csv.Error as error:
        raise CSVTableError(
            number, gettext_noop("not a valid CSV record: %(error)s."), error=str(error)
        ) from error
