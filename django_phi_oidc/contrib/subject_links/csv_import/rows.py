"""Check and apply the rows of a CSV file. No text of a problem repeats a cell: a `sub` may be in
the wrong column.
"""

import csv
import io
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.utils.translation import gettext, ngettext
from django.views.decorators.debug import sensitive_variables

from .... import conf
from ...._internal.batches import split_into_batches
from ....audit.admin_base import get_error_message
from ....audit.events import Origin
from ....config.providers import ProviderDeclaration
from ....crypto import keyring
from ....errors import PhiOidcError
from ....subjects.linking import validate_linkable_sub
from ....subjects.models import PairwiseSubject
from ...common.csv_safety import escape_formulas
from ...common.privileges import find_more_privileged
from ..bulk_links import find_linked_subjects, link_existing_users
from ..csv_tables import CSVTable, parse_csv_table
from ..user_references import find_users

MAX_ROWS = 5_000
MAX_BYTES = 1_000_000
BATCH_SIZE = 500
"""Rows of one statement."""
USER_COLUMN = "user"
SUB_COLUMN = "sub"
PROVIDER_COLUMN = "provider"
CODE_COLUMNS = ("code", "expires_at")


class ImportRefused(Exception):
    """The whole file is refused; the message is translated."""


@dataclass(slots=True, kw_only=True)
class ImportRow:
    """A record of the file."""

    line_number: int
    cells: Sequence[str] = field(repr=False)
    user: Any = None
    """None: unknown."""
    provider: Any = None
    """A ProviderDeclaration; None: unknown."""
    problem: str = ""
    """Why the row is left out."""
    note: str = ""
    """What else the import does."""
    is_done: bool = False
    """There is nothing to do."""
    is_forbidden: bool = False
    """The administrator lacks a permission, which the audit log records."""
    conflicting_user: Any = None
    """The user with the link that prevents the link of this row. Pages do not show it."""

    @property
    def is_applicable(self) -> bool:
        return not self.problem and not self.is_done

    def refuse(self, problem: str, *, is_forbidden: bool = False) -> None:
        self.problem = problem
        self.is_forbidden = is_forbidden


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedFile:
    """The rows of a file, checked against the accounts, and what is needed to write a file of the
    same format.
    """

    header: Sequence[str]
    rows: Sequence[ImportRow]
    delimiter: str
    has_bom: bool

    @property
    def applicable(self) -> list[ImportRow]:
        result = []
        for row in self.rows:
            if row.is_applicable:
                result.append(row)
        return result

    @property
    def problems(self) -> list[ImportRow]:
        result = []
        for row in self.rows:
            if row.problem:
                result.append(row)
        return result

    @property
    def done(self) -> list[ImportRow]:
        result = []
        for row in self.rows:
            if row.is_done:
                result.append(row)
        return result


@sensitive_variables()
def check_links(
    content: bytes,
    *,
    provider: ProviderDeclaration | None,
    actor: Any,
    now: datetime,
    max_rows: int | None = MAX_ROWS,
    report_progress: Callable[[int], None] | None = None,
) -> CheckedFile:
    """Return the rows with the persons that actor may link. Raises: ImportRefused, CSVTableError,
    PhiOidcError.

    provider: of the rows without a provider of their own; None: such rows are refused.
    actor: an administrator; None: the operator of a command, who may link every account.
    report_progress: called with the number of rows that were checked.
    """
    checked = parse_rows(
        content,
        required=(USER_COLUMN, SUB_COLUMN),
        reserved=(),
        provider=provider,
        max_rows=max_rows,
    )
    lines_by_sub: dict[tuple[str, str], int] = {}
    for row in list_unrefused(checked):
        first = lines_by_sub.setdefault(
            (row.provider.issuer, get_sub(checked, row)), row.line_number
        )
        if first != row.line_number:
            row.refuse(gettext("This sub is already in line %(line)d.") % {"line": first})
            continue
        try:
            validate_linkable_sub(get_sub(checked, row), provider=row.provider)
        except PhiOidcError as error:
            row.refuse(get_error_message(error))
    checked_count = 0
    for declaration in _list_providers(checked.rows):
        rows = [row for row in list_unrefused(checked) if row.provider == declaration]
        for batch in split_into_batches(rows, BATCH_SIZE):
            _check_links_of_provider(checked, batch, declaration, actor)
            checked_count += len(batch)
            if report_progress is not None:
                report_progress(checked_count)
    return checked


@sensitive_variables()
def _list_providers(rows: Iterable[ImportRow]) -> list[ProviderDeclaration]:
    """Return the providers of the rows, each once."""
    providers = {}
    for row in rows:
        if row.provider:
            providers[row.provider.name] = row.provider
    return list(providers.values())


@sensitive_variables()
def _check_links_of_provider(
    checked: CheckedFile, batch: Sequence[ImportRow], provider: ProviderDeclaration, actor: Any
) -> None:
    users = {row.user.pk: row.user for row in batch}
    more_privileged = set()
    if actor is not None:
        more_privileged = find_more_privileged(users, actor)
    subs = {row.line_number: get_sub(checked, row) for row in batch}
    subjects = find_linked_subjects(
        list(subs.values()), issuer=provider.issuer, keys=keyring.get_keys("subject")
    )
    linked = PairwiseSubject.objects.filter(user__in=users, issuer=provider.issuer)
    linked_users = set(linked.values_list("user", flat=True))
    for row in batch:
        subject = subjects.get(subs[row.line_number])
        if row.user.pk in more_privileged:
            row.refuse(
                gettext("This account has permissions that you do not have."), is_forbidden=True
            )
        elif subject is not None and subject.user_id == row.user.pk:
            row.is_done = True
        elif subject is not None:
            row.refuse(gettext("This person is already linked to another account."))
            row.conflicting_user = subject.user
        elif row.user.pk in linked_users:
            row.conflicting_user = row.user
            row.refuse(
                gettext("Another person of this provider is already linked to this account.")
            )


@sensitive_variables()
def get_sub(checked: CheckedFile, row: ImportRow) -> str:
    """Return the sub in that row."""
    return row.cells[list(checked.header).index(SUB_COLUMN)].strip()


@sensitive_variables()
def apply_links(
    checked: CheckedFile, *, provider: ProviderDeclaration, origin: Origin, now: datetime
) -> list[tuple[str, ...]]:
    """Link the persons of the applicable rows. Return no row of a file with codes.

    provider: not used, because each row has its own.
    Requires: an open transaction, which an error must roll back. Raises: PhiOidcError;
    IntegrityError if one of them was linked at the same time.
    """
    rows = sorted(checked.applicable, key=lambda row: row.user.pk)
    for declaration in _list_providers(rows):
        own = [row for row in rows if row.provider == declaration]
        for batch in split_into_batches(own, BATCH_SIZE):
            users = {get_sub(checked, row): row.user for row in batch}
            keys = keyring.get_keys("subject")
            link_existing_users(users, provider=declaration, keys=keys, origin=origin, now=now)
    return []


@sensitive_variables()
def render_csv(
    columns: Sequence[str],
    rows: Collection[Sequence[str]],
    *,
    delimiter: str = ",",
    has_bom: bool = False,
) -> bytes:
    """Return a CSV file in which no cell is a formula. delimiter, has_bom: those of the file that
    the rows are from.
    """
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    for row in (columns, *rows):
        writer.writerow(map(escape_formulas, row))
    return text.getvalue().encode("utf-8-sig" if has_bom else "utf-8")


def parse_rows(
    content: bytes,
    *,
    required: Sequence[str],
    reserved: Collection[str],
    provider: ProviderDeclaration | None,
    max_rows: int | None = MAX_ROWS,
) -> CheckedFile:
    """Return the rows with their users. Raises: ImportRefused, CSVTableError."""
    if not content.strip():
        raise ImportRefused(gettext("The file is empty."))
    table = parse_csv_table(content, required=required, reserved=reserved)
    rows = list[ImportRow]()
    for line_number, cells in table.rows:
        if len(rows) == max_rows:
            message = gettext("The file has more than %(count)d rows. Split it into several files.")
            raise ImportRefused(message % {"count": max_rows})
        rows.append(ImportRow(line_number=line_number, cells=cells, provider=provider))
    if not rows:
        raise ImportRefused(gettext("The file has no row below the column names."))
    _find_users_of_rows(table, rows)
    return CheckedFile(
        header=table.header, rows=rows, delimiter=table.delimiter, has_bom=table.has_bom
    )


def _find_users_of_rows(table: CSVTable, rows: Sequence[ImportRow]) -> None:
    """Set the user of each row, or why there is none."""
    lines_by_user: dict[tuple[str, Any], int] = {}
    for batch in split_into_batches(rows, BATCH_SIZE):
        cells_by_line: dict[int, Mapping[str, str]] = {}
        for row in batch:
            if len(row.cells) == len(table.header):
                cells_by_line[row.line_number] = table.get_cells(row.cells)
                continue
            count = len(row.cells)
            text = ngettext(
                "%(count)d cell, but %(columns)d columns in the first line.",
                "%(count)d cells, but %(columns)d columns in the first line.",
                count,
            )
            row.refuse(text % {"count": count, "columns": len(table.header)})
        users = find_users({cells[USER_COLUMN] for cells in cells_by_line.values()})
        for row in batch:
            if cells := cells_by_line.get(row.line_number):
                _set_user(row, cells, users, lines_by_user)


def _set_user(
    row: ImportRow,
    cells: Mapping[str, str],
    users: Mapping[str, Any],
    lines_by_user: dict[tuple[str, Any], int],
) -> None:
    row.user = users.get(cells[USER_COLUMN])
    if SUB_COLUMN in cells and (name := cells.get(PROVIDER_COLUMN)):
        row.provider = conf.providers().get(name)
    if row.user is None:
        row.refuse(
            gettext("There is no such user. Write the user name, or “pk:” and the primary key.")
        )
    elif row.provider is None and cells.get(PROVIDER_COLUMN):
        row.refuse(gettext("There is no such provider."))
    elif row.provider is None:
        # Only of a command, whose messages are not translated.
        row.refuse("The provider is missing: add --provider.")
    else:
        first = lines_by_user.setdefault((row.provider.issuer, row.user.pk), row.line_number)
        if first != row.line_number:
            row.refuse(gettext("This user is already in line %(line)d.") % {"line": first})


def list_unrefused(checked: CheckedFile) -> list[ImportRow]:
    unrefused = []
    for row in checked.rows:
        if not row.problem:
            unrefused.append(row)
    return unrefused
