"""Makes activation codes, for one user or for a CSV file of them, and revokes them.

A code is shown here, once: on standard output, or in a file that was not there before, for its owner alone.
"""

import csv
import io
import json
import os
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.management.base import CommandError, OutputWrapper
from django.views.decorators.debug import sensitive_variables

from ... import conf
from ..._internal import clock
from ..._internal.csv_safety import escape_formulas
from ...audit.events import Origin
from ...config.providers import ProviderDeclaration
from ...crypto import keyring
from ...errors import InvitationRefused, PhiOidcError
from ...subjects.invitations import (
    Invitation,
    create_invitations,
    revoke_activation_codes,
    validate_accepts_codes,
    validate_users,
)
from ...subjects.models import ActivationCode
from ._arguments import get_user_by_pk
from .audit import ProgressLine as Progress

BATCH_SIZE = 500
"""Users who are invited in one transaction."""
USER_COLUMN, ADDED_COLUMNS = "user", ("code", "expires_at")
_MAX_SHOWN_LENGTH = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationRow:
    """A line of the file."""

    line_number: int
    user_pk: Any
    """The primary key."""
    cells: Sequence[str] = field(repr=False)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `phi_oidc subject invite`."""
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("user", nargs="?", metavar="USER", help="primary key of the user")
    who.add_argument("--csv", metavar="FILE", help="users by their primary key, in a column `user`; -: standard input")
    who.add_argument("--revoke", metavar="USER", help="revoke the code of this user")
    parser.add_argument("--provider", metavar="NAME", help="where they sign in, if several take activation codes")
    parser.add_argument("--output", type=Path, metavar="FILE", help="with --csv: a new file, for its owner alone")
    parser.add_argument("--json", action="store_true", help="of one user, as an object")


def handle(options: Mapping[str, Any], *, stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    """Do what the arguments say. Raises: CommandError, after which no code was made but those it tells of."""
    if options["output"] is not None and options["csv"] is None:
        raise CommandError("--output goes with --csv.")
    if options["json"] and options["user"] is None:
        raise CommandError("--json goes with one user.")
    try:
        if options["revoke"] is not None:
            _revoke(options, stdout)
        elif options["csv"] is not None:
            _invite_many(options, stdout, stderr)
        else:
            _invite_one(options, stdout)
    except (PhiOidcError, ImproperlyConfigured) as refusal:
        raise CommandError(str(refusal)) from refusal


@sensitive_variables()
def _invite_one(options: Mapping[str, Any], stdout: OutputWrapper) -> None:
    (invitation,) = _create_invitations(
        [get_user_by_pk(options["user"]).pk], provider=_get_provider(options["provider"])
    )
    told = {"user": str(invitation.user_id), "code": invitation.code, "expires_at": _format_expiry(invitation)}
    said = "User {user} was invited: {code}, until {expires_at}."
    stdout.write(json.dumps(told) if options["json"] else said.format(**told))


def _revoke(options: Mapping[str, Any], stdout: OutputWrapper) -> None:
    user = get_user_by_pk(options["revoke"])
    codes = ActivationCode.objects.filter(user=user)
    if options["provider"] is not None:
        codes = codes.filter(provider=options["provider"])
    revoked = revoke_activation_codes(codes, reason="withdrawn", origin=Origin(), now=clock.now())
    stdout.write(f"User {user.pk}: {revoked} codes were revoked.")


@sensitive_variables()
def _invite_many(options: Mapping[str, Any], stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    provider = _get_provider(options["provider"])
    validate_accepts_codes(provider)
    header, rows = _parse_csv(options["csv"])
    _validate_users(rows)
    progress, done = Progress(stderr, "users were invited"), 0
    with _open_output(options["output"], stdout) as write:
        for some in _split_into_batches(rows):
            try:
                invitations = _create_invitations([row.user_pk for row in some], provider=provider)
            except InvitationRefused as refusal:
                progress.end()
                raise CommandError(f"{refusal} Those before line {some[0].line_number} were invited.") from refusal
            told = [
                (*row.cells, invitation.code, _format_expiry(invitation))
                for row, invitation in zip(some, invitations, strict=True)
            ]
            write(told if done else [(*header, *ADDED_COLUMNS), *told])
            done += len(some)
            # Not among the codes, on the same terminal.
            if options["output"] is not None or not stdout.isatty():
                progress(done, len(rows))
    progress.end()
    if options["output"] is not None:
        stdout.write(f"{done} users were invited; their codes are in {options['output']}.")


def _create_invitations(user_pks: Sequence[Any], *, provider: ProviderDeclaration) -> list[Invitation]:
    return create_invitations(
        user_pks,
        provider=provider,
        key=keyring.get_keys("subject")[0],
        lifetime=conf.activation_lifetime(),
        origin=Origin(),
        now=clock.now(),
    )


def _get_provider(name: str | None) -> ProviderDeclaration:
    declared = conf.providers()
    if name is not None:
        if name not in declared:
            raise CommandError(f"There is no provider {name}.")
        return declared[name]
    takers = [each for each in declared.values() if each.provisioning == "invitation"]
    if not takers:
        raise CommandError("No provider takes activation codes: none has the provisioning invitation.")
    if len(takers) > 1:
        names = ", ".join(each.name for each in takers)
        raise CommandError(f"Several providers take activation codes. Say --provider: {names}.")
    return takers[0]


def _parse_csv(path: str) -> tuple[Sequence[str], list[InvitationRow]]:
    """Return the names of the columns, and the lines. Raises: CommandError for the first fault, by its line."""
    lines = _read_csv_rows(path)
    number, header = next(lines, (1, []))
    if USER_COLUMN not in header:
        raise CommandError(f"Line {number}: there is no column {USER_COLUMN}; columns are parted by commas.")
    if len(set(header)) < len(header):
        raise CommandError(f"Line {number}: two columns have one name.")
    if taken := set(ADDED_COLUMNS).intersection(header):
        raise CommandError(f"Line {number}: the column {sorted(taken)[0]} is what is added.")
    position, rows, seen = header.index(USER_COLUMN), [], dict[Any, int]()
    for number, cells in lines:
        if len(cells) != len(header):
            raise CommandError(f"Line {number}: {len(cells)} columns, and {len(header)} in the first line.")
        user = _parse_user_pk(cells[position], number)
        if user in seen:
            raise CommandError(f"Line {number}: user {user} stands in line {seen[user]}, too.")
        seen[user] = number
        rows.append(InvitationRow(line_number=number, user_pk=user, cells=cells))
    if not rows:
        raise CommandError("There is no user in it.")
    return header, rows


def _read_csv_rows(path: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the line that each record begins on, and its cells; empty lines are passed over."""
    try:
        content = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
    except OSError as error:
        raise CommandError(f"{path} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise CommandError(f"Line {number}: this is not UTF-8.") from error
    begins = 1
    try:
        for cells in reader:
            if cells:
                yield begins, cells
            begins = reader.line_num + 1
    except csv.Error as error:
        raise CommandError(f"Line {begins}: {error}.") from error


def _parse_user_pk(text: str, line_number: int) -> Any:
    """Return the primary key that the text is. Raises: CommandError when it can't be one."""
    pk: Any = get_user_model()._meta.pk
    text = text.strip()
    try:
        if text and text.isprintable():
            return pk.clean(text, None)
    except ValidationError:
        pass
    raise CommandError(f"Line {line_number}: {ascii(text)[:_MAX_SHOWN_LENGTH]} is no primary key of a user.")


def _validate_users(rows: Sequence[InvitationRow]) -> None:
    """Raises: CommandError for the first user whom nobody can invite."""
    for some in _split_into_batches(rows):
        found = get_user_model()._base_manager.in_bulk([row.user_pk for row in some])
        for row in some:
            try:
                validate_users([row.user_pk], found)
            except InvitationRefused as refusal:
                raise CommandError(f"Line {row.line_number}: {refusal}") from refusal


@contextmanager
def _open_output(path: Path | None, stdout: OutputWrapper) -> Iterator[Callable[[Iterable[Sequence[str]]], None]]:
    """Give what writes lines to standard output, or to a file that was not there before, so that they are out.

    A file without any code goes, when the block fails. One with codes stays, for they can't be had again.
    """
    if path is None:
        yield lambda lines: _write_rows(lines, stdout)
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise CommandError(f"{path} can't be written as a new file: {error.strerror}.") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            yield lambda lines: _write_rows(lines, file)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}. Invite those again who are not in it.") from error
    finally:
        if not path.stat().st_size:
            path.unlink()


def _write_rows(rows: Iterable[Sequence[str]], file: Any) -> None:
    csv.writer(file).writerows([map(escape_formulas, cells) for cells in rows])
    file.flush()


def _split_into_batches(rows: Sequence[InvitationRow]) -> Iterator[Sequence[InvitationRow]]:
    return (rows[start : start + BATCH_SIZE] for start in range(0, len(rows), BATCH_SIZE))


def _format_expiry(invitation: Invitation) -> str:
    return invitation.expires_at.isoformat(timespec="seconds")
