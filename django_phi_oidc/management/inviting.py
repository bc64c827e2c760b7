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

from .. import clock, conf, keyring
from ..audit.cli import _Progress as Progress
from ..audit.events import Origin
from ..declarations import ProviderDeclaration
from ..errors import InvitationRefused, PhiOidcError
from ..spreadsheets import inert
from ..subjects.cli import named_user
from ..subjects.inviting import Invitation, check_takes_codes, check_users, invite, revoke_codes
from ..subjects.models import ActivationCode

BATCH = 500
"""Users who are invited in one transaction."""
WHO, ADDED = "user", ("code", "expires_at")
_SHOWN = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the file."""

    number: int
    user: Any
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
    (invitation,) = _invite([named_user(options["user"]).pk], provider=_provider(options["provider"]))
    told = {"user": str(invitation.user), "code": invitation.code, "expires_at": _until(invitation)}
    said = "User {user} was invited: {code}, until {expires_at}."
    stdout.write(json.dumps(told) if options["json"] else said.format(**told))


def _revoke(options: Mapping[str, Any], stdout: OutputWrapper) -> None:
    user = named_user(options["revoke"])
    codes = ActivationCode.objects.filter(user=user)
    if options["provider"] is not None:
        codes = codes.filter(provider=options["provider"])
    revoked = revoke_codes(codes, reason="withdrawn", origin=Origin(), now=clock.now())
    stdout.write(f"User {user.pk}: {revoked} codes were revoked.")


@sensitive_variables()
def _invite_many(options: Mapping[str, Any], stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    provider = _provider(options["provider"])
    check_takes_codes(provider)
    header, rows = _read(options["csv"])
    _check_users(rows)
    progress, done = Progress(stderr, "users were invited"), 0
    with _sheet(options["output"], stdout) as write:
        for some in _batches(rows):
            try:
                invitations = _invite([row.user for row in some], provider=provider)
            except InvitationRefused as refusal:
                progress.end()
                raise CommandError(f"{refusal} Those before line {some[0].number} were invited.") from refusal
            told = [
                (*row.cells, invitation.code, _until(invitation))
                for row, invitation in zip(some, invitations, strict=True)
            ]
            write(told if done else [(*header, *ADDED), *told])
            done += len(some)
            # Not among the codes, on the same terminal.
            if options["output"] is not None or not stdout.isatty():
                progress(done, len(rows))
    progress.end()
    if options["output"] is not None:
        stdout.write(f"{done} users were invited; their codes are in {options['output']}.")


def _invite(users: Sequence[Any], *, provider: ProviderDeclaration) -> list[Invitation]:
    return invite(
        users,
        provider=provider,
        key=keyring.keys("SUBJECT_KEYS")[0],
        lifetime=conf.activation_lifetime(),
        origin=Origin(),
        now=clock.now(),
    )


def _provider(name: str | None) -> ProviderDeclaration:
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


def _read(path: str) -> tuple[Sequence[str], list[Row]]:
    """Return the names of the columns, and the lines. Raises: CommandError for the first fault, by its line."""
    lines = _lines(path)
    number, header = next(lines, (1, []))
    if WHO not in header:
        raise CommandError(f"Line {number}: there is no column {WHO}; columns are parted by commas.")
    if len(set(header)) < len(header):
        raise CommandError(f"Line {number}: two columns have one name.")
    if taken := set(ADDED).intersection(header):
        raise CommandError(f"Line {number}: the column {sorted(taken)[0]} is what is added.")
    position, rows, seen = header.index(WHO), [], dict[Any, int]()
    for number, cells in lines:
        if len(cells) != len(header):
            raise CommandError(f"Line {number}: {len(cells)} columns, and {len(header)} in the first line.")
        user = _key(cells[position], number)
        if user in seen:
            raise CommandError(f"Line {number}: user {user} stands in line {seen[user]}, too.")
        seen[user] = number
        rows.append(Row(number=number, user=user, cells=cells))
    if not rows:
        raise CommandError("There is no user in it.")
    return header, rows


def _lines(path: str) -> Iterator[tuple[int, list[str]]]:
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


def _key(text: str, number: int) -> Any:
    """Return the primary key that the text is. Raises: CommandError when it can't be one."""
    pk: Any = get_user_model()._meta.pk
    text = text.strip()
    try:
        if text and text.isprintable():
            return pk.clean(text, None)
    except ValidationError:
        pass
    raise CommandError(f"Line {number}: {ascii(text)[:_SHOWN]} is no primary key of a user.")


def _check_users(rows: Sequence[Row]) -> None:
    """Raises: CommandError for the first user whom nobody can invite."""
    for some in _batches(rows):
        found = get_user_model()._base_manager.in_bulk([row.user for row in some])
        for row in some:
            try:
                check_users([row.user], found)
            except InvitationRefused as refusal:
                raise CommandError(f"Line {row.number}: {refusal}") from refusal


@contextmanager
def _sheet(path: Path | None, stdout: OutputWrapper) -> Iterator[Callable[[Iterable[Sequence[str]]], None]]:
    """Give what writes lines to standard output, or to a file that was not there before, so that they are out.

    A file without any code goes, when the block fails. One with codes stays, for they can't be had again.
    """
    if path is None:
        yield lambda lines: _write(lines, stdout)
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise CommandError(f"{path} can't be written as a new file: {error.strerror}.") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            yield lambda lines: _write(lines, file)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}. Invite those again who are not in it.") from error
    finally:
        if not path.stat().st_size:
            path.unlink()


def _write(lines: Iterable[Sequence[str]], file: Any) -> None:
    csv.writer(file).writerows([map(inert, cells) for cells in lines])
    file.flush()


def _batches(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    return (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))


def _until(invitation: Invitation) -> str:
    return invitation.expires_at.isoformat(timespec="seconds")
