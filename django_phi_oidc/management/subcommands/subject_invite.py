"""Creates activation codes for one user or a CSV file of users, and revokes them (`phi_oidc subject invite`).

Each code is shown once: on standard output, or in a new file that only its owner can read.
"""

import csv
import io
import os
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError
from django.views.decorators.debug import sensitive_variables

from ... import conf
from ..._internal import clock
from ..._internal.csv_safety import escape_formulas
from ...audit.request_context import current_origin
from ...config.providers import ProviderDeclaration
from ...crypto import keyring
from ...errors import InvitationRefused
from ...subjects.invitations import (
    Invitation,
    create_invitations,
    revoke_activation_codes,
    validate_accepts_codes,
    validate_users,
)
from ...subjects.models import ActivationCode
from ._arguments import Options, get_provider, get_user_by_pk
from ._output import Output, ProgressLine, format_value

BATCH_SIZE = 500
"""Users invited in one transaction."""
USER_COLUMN, ADDED_COLUMNS = "user", ("code", "expires_at")
_MAX_SHOWN_LENGTH = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationRow:
    """A row of the CSV file."""

    line_number: int
    user_pk: Any
    cells: Sequence[str] = field(repr=False)


def add_arguments(parser: ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("user", nargs="?", metavar="USER", help="primary key of the user")
    group.add_argument("--csv", metavar="FILE", help="primary keys of users in a column `user`; -: standard input")
    group.add_argument("--revoke", metavar="USER", help="revoke the code of this user")
    parser.add_argument("--provider", metavar="NAME", help="required if several providers accept activation codes")
    parser.add_argument("--output", type=Path, metavar="FILE", help="with --csv: a new file only its owner can read")
    parser.add_argument("--json", action="store_true", help="for one user: one object")


def handle(options: Options, output: Output) -> None:
    """Create or revoke codes. Raises: CommandError, whose message says which codes were created before, if any."""
    if options["output"] is not None and options["csv"] is None:
        raise CommandError("--output requires --csv.")
    if output.as_json and options["user"] is None:
        raise CommandError("--json requires one user.")
    if options["revoke"] is not None:
        _revoke(options, output)
    elif options["csv"] is not None:
        _invite_many(options, output)
    else:
        _invite_one(options, output)


@sensitive_variables()
def _invite_one(options: Options, output: Output) -> None:
    user, provider = get_user_by_pk(options["user"]), _get_provider(options["provider"])
    (invitation,) = _create_invitations([user.pk], provider=provider)
    expires_at = format_value(invitation.expires_at)
    row = {"user": str(invitation.user_id), "code": invitation.code, "expires_at": expires_at}
    output.write_row(row, lambda row: "User {user} was invited: {code}, until {expires_at}.".format(**row))


def _revoke(options: Options, output: Output) -> None:
    user = get_user_by_pk(options["revoke"])
    codes = ActivationCode.objects.filter(user=user)
    if options["provider"] is not None:
        codes = codes.filter(provider=options["provider"])
    count = revoke_activation_codes(codes, reason="withdrawn", origin=current_origin(), now=clock.now())
    output.write(f"User {user.pk}: {count} codes were revoked.")


@sensitive_variables()
def _invite_many(options: Options, output: Output) -> None:
    provider = _get_provider(options["provider"])
    validate_accepts_codes(provider)
    header, rows = _parse_csv(options["csv"])
    _validate_users(rows)
    progress, done = ProgressLine(output, "users were invited"), 0
    # Progress must not be mixed with codes on the same terminal.
    shows_progress = options["output"] is not None or not output.stdout.isatty()
    with _open_output(options["output"], output) as write:
        for batch in _split_into_batches(rows):
            try:
                invitations = _create_invitations([row.user_pk for row in batch], provider=provider)
            except InvitationRefused as refusal:
                progress.end()
                message = f"{refusal} The users before line {batch[0].line_number} were invited."
                raise CommandError(message) from refusal
            pairs = zip(batch, invitations, strict=True)
            lines = [(*row.cells, item.code, format_value(item.expires_at)) for row, item in pairs]
            write(lines if done else [(*header, *ADDED_COLUMNS), *lines])
            done += len(batch)
            if shows_progress:
                progress(done, len(rows))
    progress.end()
    if options["output"] is not None:
        output.write(f"{done} users were invited; their codes are in {options['output']}.")


def _create_invitations(user_pks: Sequence[Any], *, provider: ProviderDeclaration) -> list[Invitation]:
    key, lifetime = keyring.get_keys("subject")[0], conf.activation_lifetime()
    return create_invitations(
        user_pks, provider=provider, key=key, lifetime=lifetime, origin=current_origin(), now=clock.now()
    )


def _get_provider(name: str | None) -> ProviderDeclaration:
    if name is not None:
        return get_provider(name)
    providers = [provider for provider in conf.providers().values() if provider.provisioning == "invitation"]
    if not providers:
        raise CommandError('No provider accepts activation codes: none has the provisioning "invitation".')
    if len(providers) > 1:
        names = ", ".join(provider.name for provider in providers)
        raise CommandError(f"Several providers accept activation codes. Add --provider: {names}.")
    return providers[0]


def _parse_csv(path: str) -> tuple[Sequence[str], list[InvitationRow]]:
    """Return the header and the rows. Raises: CommandError for the first fault, with its line number."""
    lines = _read_csv_rows(path)
    number, header = next(lines, (1, []))
    if USER_COLUMN not in header:
        raise CommandError(f"Line {number}: there is no column {USER_COLUMN}; columns are separated by commas.")
    if len(set(header)) < len(header):
        raise CommandError(f"Line {number}: two columns have the same name.")
    if reserved := set(ADDED_COLUMNS).intersection(header):
        raise CommandError(f"Line {number}: the column {min(reserved)} is reserved for the output.")
    position, rows, line_by_user = header.index(USER_COLUMN), [], dict[Any, int]()
    for number, cells in lines:
        if len(cells) != len(header):
            raise CommandError(f"Line {number}: {len(cells)} columns, but {len(header)} in the first line.")
        user = _parse_user_pk(cells[position], number)
        if user in line_by_user:
            raise CommandError(f"Line {number}: user {user} is already in line {line_by_user[user]}.")
        line_by_user[user] = number
        rows.append(InvitationRow(line_number=number, user_pk=user, cells=cells))
    if not rows:
        raise CommandError("The file contains no users.")
    return header, rows


def _read_csv_rows(path: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line number and the cells of each record. Empty lines are skipped."""
    try:
        content = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise CommandError(f"Line {number}: not valid UTF-8.") from error
    number = 1
    try:
        for cells in reader:
            if cells:
                yield number, cells
            number = reader.line_num + 1
    except csv.Error as error:
        raise CommandError(f"Line {number}: {error}.") from error


def _parse_user_pk(text: str, line_number: int) -> Any:
    pk: Any = get_user_model()._meta.pk
    text = text.strip()
    try:
        if text and text.isprintable():
            return pk.clean(text, None)
    except ValidationError:
        pass
    raise CommandError(f"Line {line_number}: {ascii(text)[:_MAX_SHOWN_LENGTH]} is not a primary key of a user.")


def _validate_users(rows: Sequence[InvitationRow]) -> None:
    """Raises: CommandError for the first user who cannot be invited."""
    for batch in _split_into_batches(rows):
        users = get_user_model()._base_manager.in_bulk([row.user_pk for row in batch])
        for row in batch:
            try:
                validate_users([row.user_pk], users)
            except InvitationRefused as refusal:
                raise CommandError(f"Line {row.line_number}: {refusal}") from refusal


@contextmanager
def _open_output(path: Path | None, output: Output) -> Iterator[Callable[[Iterable[Sequence[str]]], None]]:
    """Return a function that writes and flushes rows, to standard output or to a new file.

    If the block fails, an empty file is deleted. A file with codes is kept, because they cannot be shown again.
    """
    if path is None:
        yield lambda rows: _write_rows(rows, output.stdout)
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise CommandError(f"{path} cannot be created: {error.strerror}.") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            yield lambda rows: _write_rows(rows, file)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}. Invite the users who are not in it again.") from error
    finally:
        if not path.stat().st_size:
            path.unlink()


def _write_rows(rows: Iterable[Sequence[str]], file: Any) -> None:
    csv.writer(file).writerows([map(escape_formulas, cells) for cells in rows])
    file.flush()


def _split_into_batches(rows: Sequence[InvitationRow]) -> Iterator[Sequence[InvitationRow]]:
    return (rows[start : start + BATCH_SIZE] for start in range(0, len(rows), BATCH_SIZE))
