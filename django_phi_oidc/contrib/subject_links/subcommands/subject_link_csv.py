"""Link the persons of a CSV file to users (`phi_oidc subject link --csv`).

All rows are validated before the first link. No message repeats a cell, because a `sub` may be in
the wrong column.
"""

import stat
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ObjectDoesNotExist
from django.core.management.base import CommandError
from django.db import transaction
from django.views.decorators.debug import sensitive_variables

from .... import conf
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
from ....config.providers import ProviderDeclaration
from ....crypto import keyring
from ....errors import PhiOidcError, SubjectKeyMissing
from ....management.subcommands._arguments import (
    USER_FORMS,
    build_user_row,
    describe_user,
    find_default_provider,
    get_user,
)
from ....subjects.linking import find_linked_subject, link_existing_user, validate_linkable_sub
from ....subjects.models import PairwiseSubject
from ..csv_files import read_csv_table

USER_COLUMN = "user"
SUB_COLUMN = "sub"
PROVIDER_COLUMN = "provider"
BATCH_SIZE = 100
"""Rows whose events are moved to the audit log together."""
LINKED = "linked"
ALREADY_LINKED = "already_linked"
WOULD_BE_LINKED = "would_be_linked"
REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRow:
    """A valid row of the CSV file."""

    line_number: int
    user: Any
    provider: ProviderDeclaration
    sub: str = field(repr=False)
    is_linked: bool
    """The person is linked to this user already."""


class RowRefused(Exception):
    """The row cannot be applied; the message gives the reason without a cell of the row."""


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
    rows, refusals = _parse_rows(
        path, default_provider=find_default_provider(options["provider"]), output=output
    )
    if refusals:
        _write_refusals(refusals, output)
        raise CommandError(f"{len(refusals)} rows are invalid. Nothing was linked.")
    new = []
    for row in rows:
        if not row.is_linked:
            new.append(row)
    before = f"{len(rows) - len(new)} were linked before"
    if options["dry_run"]:
        _write_rows({row.line_number: _build_row(row, is_dry_run=True) for row in rows}, output)
        output.preview(
            _count(len(new), len(rows)), f"{len(new)} persons would be linked, {before}."
        )
        return
    uuids = _link_rows(new, refusals, output)
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
def _link_rows(rows: Sequence[LinkRow], refusals: dict[int, str], output: Output) -> dict[int, str]:
    """Link each row; return the subjects' UUIDs by line number, and add the others to refusals."""
    uuids: dict[int, str] = {}
    with ProgressLine(output, "persons linked", len(rows)) as progress:
        for batch in split_into_batches(enumerate(rows, start=1), BATCH_SIZE):
            with batch_delivery():
                for number, row in batch:
                    try:
                        uuids[row.line_number] = _link(row)
                    except RowRefused as refusal:
                        refusals[row.line_number] = str(refusal)
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


def _build_row(row: LinkRow, *, uuid: str = "", is_dry_run: bool = False) -> dict[str, Any]:
    if row.is_linked:
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
def _parse_rows(
    path: str, *, default_provider: ProviderDeclaration | None, output: Output
) -> tuple[list[LinkRow], dict[int, str]]:
    """Return the valid rows, and the reasons against the others by line number. Raises:
    CommandError for the file.
    """
    header, lines = read_csv_table(path, required=[USER_COLUMN, SUB_COLUMN])
    rows = list[LinkRow]()
    refusals = dict[int, str]()
    lines_of_users = dict[Any, int]()
    lines_of_persons = dict[Any, int]()
    with ProgressLine(output, "lines read") as progress:
        for number, cells in progress.track(lines):
            try:
                if len(cells) != len(header):
                    raise RowRefused(f"{len(cells)} columns, but {len(header)} in the first line.")
                row = _parse_row(number, dict(zip(header, cells, strict=True)), default_provider)
                issuer = row.provider.issuer
                _refuse_repetition(lines_of_users, (issuer, row.user.pk), number, "this user")
                _refuse_repetition(lines_of_persons, (issuer, row.sub), number, "this sub")
                rows.append(row)
            except RowRefused as refusal:
                refusals[number] = str(refusal)
    if not rows and not refusals:
        raise CommandError("The file contains no rows.")
    return rows, refusals


def _refuse_repetition(lines: dict[Any, int], key: Any, line_number: int, name: str) -> None:
    if lines.setdefault(key, line_number) != line_number:
        raise RowRefused(f"{name} is already in line {lines[key]}.")


@sensitive_variables()
def _parse_row(
    line_number: int, cells: Mapping[str, str], default_provider: ProviderDeclaration | None
) -> LinkRow:
    """Raises: RowRefused; SubjectKeyMissing, which concerns the whole file."""
    sub = cells[SUB_COLUMN].strip()
    provider_name = cells.get(PROVIDER_COLUMN, "").strip()
    if provider_name:
        provider = conf.providers().get(provider_name)
    else:
        provider = default_provider

    if provider is None:
        raise RowRefused(
            "there is no such provider."
            if provider_name
            else "the provider is missing: add --provider."
        )
    try:
        user = get_user(cells[USER_COLUMN].strip())
    except CommandError as error:
        raise RowRefused(f"there is no such user, or several: {USER_FORMS}.") from error
    try:
        validate_linkable_sub(sub, provider=provider)
        linked = find_linked_subject(
            issuer=provider.issuer, sub=sub, keys=keyring.get_keys("subject")
        )
    except SubjectKeyMissing:
        raise
    except PhiOidcError as error:
        raise RowRefused(str(error)) from error
    if linked is not None and linked.user_id != user.pk:
        raise RowRefused(f"this person is linked to user {describe_user(linked.user)} already.")
    if linked is None:
        _refuse_second_person(user, provider)
    return LinkRow(
        line_number=line_number, user=user, provider=provider, sub=sub, is_linked=linked is not None
    )


def _refuse_second_person(user: Any, provider: ProviderDeclaration) -> None:
    """Raises: RowRefused. A second person would get access to the same record: `subject link
    --user` permits that.
    """
    if PairwiseSubject.objects.filter(user=user.pk, issuer=provider.issuer).exists():
        raise RowRefused(
            f"another person of this provider is linked to user {describe_user(user)} already."
        )


@sensitive_variables()
def _link(row: LinkRow) -> str:
    """Link the person in a transaction of its own, and return the subject's UUID. Raises:
    RowRefused.
    """
    users = get_user_model()._base_manager.select_for_update(no_key=True, of=("self",))
    try:
        with transaction.atomic():
            # Another link of this account since the rows were validated is seen here.
            users.get(pk=row.user.pk)
            _refuse_second_person(row.user, row.provider)
            subject = link_existing_user(
                row.user,
                sub=row.sub,
                provider=row.provider,
                keys=keyring.get_keys("subject"),
                origin=current_origin(),
                now=clock.now(),
            )
    except (PhiOidcError, ObjectDoesNotExist) as error:
        raise RowRefused(str(error)) from error
    return str(subject.uuid)
