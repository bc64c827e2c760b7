"""Link the persons of a CSV file to users (`phi_oidc subject link --csv`).

All rows are validated before the first link. No message repeats a cell, because a `sub` may be in
the wrong column.
"""

import stat
from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.core.management.base import CommandError
from django.db import IntegrityError
from django.utils.translation import override
from django.views.decorators.debug import sensitive_variables

from ...._internal import clock
from ...._internal.batches import split_into_batches
from ...._internal.command_arguments import (
    Handler,
    Options,
    add_dry_run,
    build_argument_error,
)
from ...._internal.command_output import Output, ProgressLine
from ....audit.outbox import batch_delivery
from ....audit.request_context import current_origin
from ....crypto import keyring
from ....errors import PhiOidcError, SubjectTaken
from ....management.subcommands._arguments import (
    build_user_row,
    describe_user,
    find_default_provider,
)
from ..bulk_links import link_existing_users
from ..csv_files import read_csv_file
from ..csv_import.rows import CheckedFile, ImportRefused, ImportRow, check_links, get_sub
from ..csv_tables import CSVTableError

BATCH_SIZE = 100
"""Rows whose events are moved to the audit log together."""
LINKED = "linked"
ALREADY_LINKED = "already_linked"
WOULD_BE_LINKED = "would_be_linked"
REFUSED = "refused"


def add_source(parser: ArgumentParser, sources: Any) -> None:
    """Add `--csv` to the arguments of `phi_oidc subject link`. sources: of which one is given."""
    help_text = (
        "A CSV file with the columns `user`, `sub` and optionally `provider`; -: standard input."
    )
    sources.add_argument("--csv", metavar="FILE", help=help_text)
    add_dry_run(parser)
    parser.set_defaults(handler=_create_handler(parser.get_default("handler")))


def _create_handler(link_one: Handler) -> Handler:
    @sensitive_variables()
    def handle(options: Options, output: Output) -> None:
        if options["csv"] is not None:
            link_csv(options, output)
            return
        if options["dry_run"]:
            raise build_argument_error("--dry-run requires --csv.")
        link_one(options, output)

    return handle


@sensitive_variables()
def link_csv(options: Options, output: Output) -> None:
    """Link all persons of the file that are not linked yet, or none if a row is invalid. Raises:
    CommandError.
    """
    path = options["csv"]
    _warn_about_permissions(path, output)
    checked = _check_file(path, options, output)
    refusals = {row.line_number: _describe_problem(row) for row in checked.problems}
    if refusals:
        _write_refusals(refusals, output)
        raise CommandError(f"{len(refusals)} rows are invalid. Nothing was linked.")
    rows = checked.rows
    new = checked.applicable
    before = f"{len(rows) - len(new)} were linked before"
    if options["dry_run"]:
        _write_rows({row.line_number: _build_row(row, is_dry_run=True) for row in rows}, output)
        output.preview(
            _count(len(new), len(rows)), f"{len(new)} persons would be linked, {before}."
        )
        return
    uuids = _link_rows(checked, refusals, output)
    applied = []
    for row in rows:
        if row.line_number not in refusals:
            applied.append(row)
    _write_rows(
        {row.line_number: _build_row(row, uuid=uuids.get(row.line_number, "")) for row in applied},
        output,
    )
    _write_refusals(refusals, output)

    if refusals:
        fault = f"{len(refusals)} rows were refused."
    else:
        fault = ""

    output.confirm(
        _count(len(uuids), len(applied)),
        f"{len(uuids)} persons were linked, {before}.",
        fault=fault,
    )


@sensitive_variables()
def _check_file(path: str, options: Options, output: Output) -> CheckedFile:
    """Raises: CommandError for the file."""
    content = read_csv_file(path)
    provider = find_default_provider(options["provider"])
    try:
        # The texts of commands are in English.
        with override(None), ProgressLine(output, "lines read") as progress:
            return check_links(
                content,
                provider=provider,
                actor=None,
                now=clock.now(),
                max_rows=None,
                report_progress=progress,
            )
    except (CSVTableError, ImportRefused) as error:
        raise CommandError(str(error)) from error


def _describe_problem(row: ImportRow) -> str:
    if row.conflicting_user is None:
        return row.problem
    return f"{row.problem} The user is {describe_user(row.conflicting_user)}."


@sensitive_variables()
def _link_rows(checked: CheckedFile, refusals: dict[int, str], output: Output) -> dict[int, str]:
    """Link each row; return the subjects' UUIDs by line number, and add the others to refusals."""
    rows = checked.applicable
    uuids: dict[int, str] = {}
    with ProgressLine(output, "persons linked", len(rows)) as progress:
        for batch in split_into_batches(enumerate(rows, start=1), BATCH_SIZE):
            with batch_delivery():
                for number, row in batch:
                    try:
                        uuids[row.line_number] = _link(row, sub=get_sub(checked, row))
                    except (PhiOidcError, ObjectDoesNotExist, IntegrityError) as error:
                        refusals[row.line_number] = _describe_refusal(row, error)
                    progress(number)
    return uuids


def _count(linked: int, total: int) -> dict[str, int]:
    return {LINKED: linked, ALREADY_LINKED: total - linked}


def _write_rows(rows: Mapping[int, Mapping[str, Any]], output: Output) -> None:
    """Write the rows as JSON; the text is a summary."""
    if output.as_json:
        for row in rows.values():
            output.write_row(row, str)


def _write_refusals(refusals: Mapping[int, str], output: Output) -> None:
    _write_rows(
        {line: {"line": line, "status": REFUSED, "reason": refusals[line]} for line in refusals},
        output,
    )
    for line_number, reason in refusals.items():
        if not output.as_json:
            output.warn(f"Line {line_number}: {reason}")


def _build_row(row: ImportRow, *, uuid: str = "", is_dry_run: bool = False) -> dict[str, Any]:
    if row.is_done:
        status = ALREADY_LINKED
    elif is_dry_run:
        status = WOULD_BE_LINKED
    else:
        status = LINKED

    line = {"line": row.line_number, "status": status}
    return {**line, **build_user_row(row.user), "provider": row.provider.name, "uuid": uuid}


def _warn_about_permissions(path: str, output: Output) -> None:
    try:
        if path != "-":
            mode = stat.S_IMODE(Path(path).stat().st_mode)
        else:
            mode = 0
    except OSError:
        return
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        text = f"{path} contains subs, and other users of this system can open it (mode {mode:04o})"
        output.warn(f"{text}: chmod 600, and delete it afterwards.")


@sensitive_variables()
def _link(row: ImportRow, *, sub: str) -> str:
    """Link the person in a transaction of its own, and return the subject's UUID. Raises:
    PhiOidcError, ObjectDoesNotExist, IntegrityError, as `link_existing_users`.
    """
    subjects = link_existing_users(
        {sub: row.user},
        provider=row.provider,
        keys=keyring.get_keys("subject"),
        origin=current_origin(),
        now=clock.now(),
    )
    return str(subjects[sub].uuid)


def _describe_refusal(row: ImportRow, error: Exception) -> str:
    """Return why a row was refused that was valid when the file was checked."""
    has_second_person = isinstance(error, SubjectTaken) and error.user == row.user.pk
    if has_second_person:
        return f"Another person of this provider is linked to user {describe_user(row.user)} now."
    if isinstance(error, IntegrityError):
        # The message of the database has values of the row.
        return "The person was linked at the same time."
    return str(error)
