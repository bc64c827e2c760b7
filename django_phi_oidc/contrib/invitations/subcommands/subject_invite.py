"""Create activation codes for one user or a CSV file of users, and revoke them (`phi_oidc subject
invite`).

Each code is shown once: on standard output, or in a new file that only its owner can read.
"""

import csv
import os
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError
from django.views.decorators.debug import sensitive_variables

from .... import conf
from ...._internal import clock
from ...._internal.batches import split_into_batches
from ...._internal.command_arguments import Options, add_command, add_dry_run, build_argument_error
from ...._internal.command_output import Output, ProgressLine, format_value
from ....audit.request_context import current_origin
from ....config.providers import ProviderDeclaration
from ....crypto import keyring
from ....management.subcommands._arguments import (
    USER_FORMS,
    build_user_row,
    describe_user,
    get_provider,
    get_user,
)
from ...common.csv_safety import escape_formulas
from ...subject_links.csv_files import read_csv_table
from .. import conf as invitations_conf
from ..errors import InvitationRefused
from ..invitations import (
    Invitation,
    create_invitations,
    revoke_activation_codes,
    validate_accepts_codes,
    validate_users,
)
from ..models import ActivationCode

BATCH_SIZE = 500
"""Users invited in one transaction."""
USER_COLUMN = "user"
ADDED_COLUMNS = ("code", "expires_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationRow:
    """A row of the CSV file."""

    line_number: int
    user_pk: Any
    cells: Sequence[str] = field(repr=False)


def add_subcommands(commands: Any) -> None:
    """Add `invite` to the subcommands of `phi_oidc subject`."""
    parser = add_command(
        commands, "invite", handle, "Create activation codes, which are shown once, or revoke one."
    )
    _add_arguments(parser)


def _add_arguments(parser: ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("user", nargs="?", metavar="USER", help=f"The user to invite: {USER_FORMS}.")
    csv_help = "A CSV file with the users in a column `user`; -: standard input."
    group.add_argument("--csv", metavar="FILE", help=csv_help)
    group.add_argument(
        "--revoke", metavar="USER", help=f"Revoke the code of this user: {USER_FORMS}."
    )
    parser.add_argument(
        "--provider", metavar="NAME", help="Required if several providers accept activation codes."
    )
    output_help = "With --csv: a new file that only its owner can read."
    parser.add_argument("--output", type=Path, metavar="FILE", help=output_help)
    add_dry_run(parser)


def handle(options: Options, output: Output) -> None:
    """Create or revoke codes. Raises: CommandError, whose message says which codes were created
    before, if any.
    """
    if options["output"] is not None and options["csv"] is None:
        raise build_argument_error("--output requires --csv.")
    if options["dry_run"] and options["revoke"] is None:
        raise build_argument_error("--dry-run requires --revoke.")
    if options["revoke"] is not None:
        _revoke(options, output)
    elif options["csv"] is not None:
        _invite_many(options, output)
    else:
        _invite_one(options, output)


@sensitive_variables()
def _invite_one(options: Options, output: Output) -> None:
    user = get_user(options["user"])
    provider = _get_provider(options["provider"])
    (invitation,) = _create_invitations([user.pk], provider=provider)
    expires_at = format_value(invitation.expires_at)
    row = {**build_user_row(user), "code": invitation.code, "expires_at": expires_at}
    output.write_row(row, "User {user} was invited: {code}, until {expires_at}.".format_map)


def _revoke(options: Options, output: Output) -> None:
    user = get_user(options["revoke"])
    codes = ActivationCode.objects.filter(user=user)
    now = clock.now()
    if (provider := options["provider"]) is not None:
        codes = codes.filter(provider=provider)
        # A provider that is no longer declared may still have codes.
        if provider not in conf.providers() and not codes.exists():
            get_provider(provider)
    row = build_user_row(user)
    if options["dry_run"]:
        row["codes"] = codes.redeemable(now=now).count()
        output.preview(row, f"User {row['user']}: {row['codes']} codes would be revoked.")
        return
    row["codes"] = revoke_activation_codes(
        codes, reason="withdrawn", origin=current_origin(), now=now
    )
    output.confirm(row, f"User {row['user']}: {row['codes']} codes were revoked.")


@sensitive_variables()
def _invite_many(options: Options, output: Output) -> None:
    provider = _get_provider(options["provider"])
    validate_accepts_codes(provider)
    header, rows = _parse_csv(options["csv"], output)
    _validate_users(rows)
    done = 0
    columns = (*header, *ADDED_COLUMNS)
    # The codes on standard output must not be mixed with progress on the same terminal.
    with (
        ProgressLine(
            output, "users invited", len(rows), prints_rows=options["output"] is None
        ) as progress,
        _open_output(options["output"], output, columns) as write,
    ):
        for batch in split_into_batches(rows, BATCH_SIZE):
            try:
                invitations = _create_invitations([row.user_pk for row in batch], provider=provider)
            except InvitationRefused as refusal:
                message = f"{refusal} The users before line {batch[0].line_number} were invited."
                raise CommandError(message) from refusal
            pairs = zip(batch, invitations, strict=True)
            write([(*row.cells, item.code, format_value(item.expires_at)) for row, item in pairs])
            done += len(batch)
            progress(done)
    if (path := options["output"]) is not None:
        output.confirm(
            {"users": done, "file": str(path)},
            f"{done} users were invited; their codes are in {path}.",
        )


def _create_invitations(
    user_pks: Sequence[Any], *, provider: ProviderDeclaration
) -> list[Invitation]:
    key = keyring.get_keys("subject")[0]
    lifetime = invitations_conf.activation_lifetime()
    return create_invitations(
        user_pks,
        provider=provider,
        key=key,
        lifetime=lifetime,
        origin=current_origin(),
        now=clock.now(),
    )


def _get_provider(name: str | None) -> ProviderDeclaration:
    if name is not None:
        return get_provider(name)
    providers = []
    for provider in conf.providers().values():
        if provider.provisioning == "invitation":
            providers.append(provider)
    if not providers:
        raise CommandError(
            'No provider accepts activation codes: none has the provisioning "invitation".'
        )
    if len(providers) > 1:
        names = ", ".join(provider.name for provider in providers)
        raise build_argument_error(
            f"Several providers accept activation codes. Add --provider: {names}."
        )
    return providers[0]


def _parse_csv(path: str, output: Output) -> tuple[Sequence[str], list[InvitationRow]]:
    """Return the header and the rows. Raises: CommandError for the first fault, with its line
    number.
    """
    header, lines = read_csv_table(path, required=[USER_COLUMN], reserved=ADDED_COLUMNS)
    position = header.index(USER_COLUMN)
    rows = []
    line_by_user = dict[Any, int]()
    with ProgressLine(output, "lines read") as progress:
        for number, cells in progress.track(lines):
            if len(cells) != len(header):
                raise CommandError(
                    f"Line {number}: {len(cells)} columns, but {len(header)} in the first line."
                )
            user = _get_user(cells[position].strip(), number)
            if first := line_by_user.get(user.pk):
                raise CommandError(
                    f"Line {number}: user {describe_user(user)} is already in line {first}."
                )
            line_by_user[user.pk] = number
            rows.append(InvitationRow(line_number=number, user_pk=user.pk, cells=cells))
    if not rows:
        raise CommandError("The file contains no users.")
    return header, rows


def _get_user(reference: str, line_number: int) -> Any:
    try:
        return get_user(reference)
    except CommandError as error:
        raise CommandError(f"Line {line_number}: {error}") from error


def _validate_users(rows: Sequence[InvitationRow]) -> None:
    """Raises: CommandError for the first user who cannot be invited."""
    for batch in split_into_batches(rows, BATCH_SIZE):
        users = get_user_model()._base_manager.in_bulk([row.user_pk for row in batch])
        for row in batch:
            try:
                validate_users([row.user_pk], users)
            except InvitationRefused as refusal:
                raise CommandError(f"Line {row.line_number}: {refusal}") from refusal


@contextmanager
def _open_output(
    path: Path | None, output: Output, columns: Sequence[str]
) -> Iterator[Callable[[Sequence[Sequence[str]]], None]]:
    """Return a function that writes and flushes rows: as CSV with a header, or to standard output
    with `--json`.

    If the block fails, an empty file is deleted. A file with codes is kept, because they cannot be
    shown again.
    """
    if path is None:
        if output.as_json:
            yield _create_json_writer(output, columns)
        else:
            yield _create_csv_writer(output.stdout, columns)
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise CommandError(f"{path} cannot be created: {error.strerror}.") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            yield _create_csv_writer(file, columns)
    except OSError as error:
        raise CommandError(
            f"{path}: {error.strerror}. Invite the users who are not in it again."
        ) from error
    finally:
        if not path.stat().st_size:
            path.unlink()


def _create_csv_writer(
    file: Any, columns: Sequence[str]
) -> Callable[[Sequence[Sequence[str]]], None]:
    header = [columns]

    def write(rows: Sequence[Sequence[str]]) -> None:
        csv.writer(file).writerows([map(escape_formulas, cells) for cells in (*header, *rows)])
        header.clear()
        file.flush()

    return write


def _create_json_writer(
    output: Output, columns: Sequence[str]
) -> Callable[[Sequence[Sequence[str]]], None]:
    def write(rows: Sequence[Sequence[str]]) -> None:
        for cells in rows:
            output.write_row(dict(zip(columns, cells, strict=True)), "")

    return write
