"""Links persons to accounts or invites them, unlinks and lists them; gives out or erases what is held of one.

The `sub` comes on standard input: arguments stand in the shell's history and in the list of processes.
"""

import json
import sys
import uuid
from argparse import ArgumentParser
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.core.management.base import CommandError, OutputWrapper
from django.views.decorators.debug import sensitive_variables

from ... import conf
from ..._internal import clock
from ...audit.events import Origin
from ...errors import AuditUnavailable, PhiOidcError
from ...individual_rights.erasure import erase_person
from ...individual_rights.export import export_person
from ...subjects.models import PairwiseSubject
from . import subject_accounting, subject_invite, subject_link
from ._arguments import get_user_by_pk
from ._files import create_private_file


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the subcommands of `phi_oidc subject`."""
    commands = subject_link.add_arguments(parser)
    export = commands.add_parser("export", help="give out all that is held of a person, as JSON; status 1: not all")
    _add_person_arguments(export)
    export.add_argument("--output", type=Path, metavar="FILE", help="a new file, for its owner's eyes alone")
    subject_accounting.add_arguments(commands.add_parser("accounting", help="tell who looked at a person's record"))
    subject_invite.add_arguments(commands.add_parser("invite", help="make activation codes, which are shown once"))
    erase = commands.add_parser("erase", help="end the sessions of a person, and erase all that is held of them")
    _add_person_arguments(erase)
    erase.add_argument("--yes", action="store_true", help="do not ask")


def handle(options: Mapping[str, Any], *, stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    """Do what the subcommand says. Raises: CommandError when it is refused, or there is no such user or person."""
    own = {"accounting": subject_accounting.handle, "export": _export, "erase": _erase}.get(options["subject_command"])
    if own is None:
        others = subject_invite if options["subject_command"] == "invite" else subject_link
        others.handle(options, stdout=stdout, stderr=stderr)
    else:
        own(options, stdout)


def _add_person_arguments(parser: ArgumentParser) -> None:
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("uuid", nargs="?", type=uuid.UUID, metavar="UUID", help="of the subject, as `list` shows it")
    who.add_argument("--user", metavar="PK", help="of this user: all their subjects")


def _get_person(options: Mapping[str, Any]) -> tuple[AbstractBaseUser, list[PairwiseSubject]]:
    if options["user"] is not None:
        user = get_user_by_pk(options["user"])
        return user, list(PairwiseSubject.objects.filter(user=user.pk).order_by("pk"))
    subject = PairwiseSubject.objects.select_related("user").filter(uuid=options["uuid"]).first()
    if subject is None:
        raise CommandError(f"There is no subject {options['uuid']}.")
    return subject.user, [subject]


@sensitive_variables()
def _export(options: Mapping[str, Any], stdout: OutputWrapper) -> None:
    user, subjects = _get_person(options)
    path = options["output"]
    try:
        with create_private_file(path) if path else nullcontext() as file:
            exported = export_person(user, subjects, claim_declarations=conf.claims(), origin=Origin(), now=clock.now())
            # What a provider sent as a name must not be obeyed by a terminal.
            text = json.dumps(exported.document, indent=2, ensure_ascii=file is None)
            if file is not None:
                file.write(f"{text}\n")
    except AuditUnavailable as refusal:
        raise CommandError(f"Nothing was given out. {refusal}") from refusal
    except OSError as error:
        raise CommandError(f"{path} can't be written as a new file: {error.strerror}.") from error
    stdout.write(text if path is None else f"What is held of user {user.pk} is in {path}.")
    if exported.unreadable_items:
        raise CommandError(f"Not all of it could be read: {', '.join(exported.unreadable_items)}.")


def _erase(options: Mapping[str, Any], stdout: OutputWrapper) -> None:
    user, subjects = _get_person(options)
    named = ", ".join(str(subject.uuid) for subject in subjects) or "none"
    if not options["yes"]:
        _confirm(f"All that is held of user {user.pk} as subject {named} will be erased, for good.")
    try:
        erased = erase_person(user, subjects, origin=Origin(), now=clock.now())
    except PhiOidcError as refusal:
        raise CommandError(f"Nothing was erased. {refusal}") from refusal
    stdout.write(
        f"User {user.pk}: {len(erased.subject_uuids)} subjects, {erased.claim_count} claims, {erased.session_count} sessions,"
        f" {erased.identifier_count} pairwise identifiers and {erased.invitation_count} invitations were erased."
        " The account is left."
    )


def _confirm(message: str) -> None:
    if not sys.stdin.isatty():
        raise CommandError(f"{message} Say --yes.")
    if input(f"{message} Type yes: ").strip() != "yes":
        raise CommandError("Nothing was erased.")
