"""Links and invites persons, unlinks and lists them, and exports, accounts for and erases their data.

The `sub` is read from standard input, because arguments are visible in the shell history and the process list.
"""

import json
import sys
import uuid
from argparse import ArgumentParser
from contextlib import nullcontext
from getpass import getpass
from pathlib import Path

from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ObjectDoesNotExist
from django.core.management.base import CommandError
from django.views.decorators.debug import sensitive_variables

from ... import conf
from ..._internal import clock
from ...audit.request_context import current_origin
from ...claims.retention import destroy_unused_keys
from ...crypto import keyring
from ...errors import AuditUnavailable, HeldForLegalReasons, KeyMissing, PhiOidcError
from ...individual_rights.erasure import erase_person
from ...individual_rights.export import export_person
from ...subjects.linking import link_existing_user
from ...subjects.models import PairwiseSubject
from . import subject_accounting, subject_invite
from ._arguments import Options, add_command, get_provider, get_user_by_pk
from ._files import create_private_file
from ._output import Output, format_value


def add_arguments(parser: ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="subject_command", required=True)
    link = add_command(commands, "link", _link, "link the person whose sub is read from standard input to a user")
    link.add_argument("--provider", required=True, metavar="NAME", help="the provider that issued the sub")
    link.add_argument("--user", required=True, metavar="PK", help="primary key of the user")
    unlink = add_command(commands, "unlink", _unlink, "end the sessions of a person, erase the claims, and unlink")
    unlink.add_argument("uuid", type=uuid.UUID, metavar="UUID", help="of the subject, as shown by `list`")
    listing = add_command(commands, "list", _list, "list the linked persons")
    listing.add_argument("--user", metavar="PK", help="only subjects of this user")
    listing.add_argument("--json", action="store_true", help="one object per line")
    export = add_command(commands, "export", _export, "export the data of a person as JSON; status 1 if incomplete")
    accounting = add_command(commands, "accounting", subject_accounting.handle, "list who accessed a person's record")
    subject_accounting.add_arguments(accounting)
    invite = add_command(commands, "invite", subject_invite.handle, "create activation codes, which are shown once")
    subject_invite.add_arguments(invite)
    erase = add_command(commands, "erase", _erase, "end the sessions of a person and erase the stored data")
    for command in (export, erase):
        group = command.add_mutually_exclusive_group(required=True)
        group.add_argument("uuid", nargs="?", type=uuid.UUID, metavar="UUID", help="of the subject, as shown by `list`")
        group.add_argument("--user", metavar="PK", help="all subjects of this user")
    export.add_argument("--output", type=Path, metavar="FILE", help="a new file that only its owner can read")
    erase.add_argument("--yes", action="store_true", help="do not ask for confirmation")


@sensitive_variables()
def _link(options: Options, output: Output) -> None:
    user, provider = get_user_by_pk(options["user"]), get_provider(options["provider"])
    sub = getpass("Subject (sub), not shown: ") if sys.stdin.isatty() else sys.stdin.read()
    try:
        subject = link_existing_user(
            user,
            sub=sub.strip(),
            provider=provider,
            keys=keyring.get_keys("subject"),
            origin=current_origin(),
            now=clock.now(),
        )
    except ObjectDoesNotExist as error:
        raise CommandError(str(error)) from error
    output.write(f"User {user.pk} was linked: subject {subject.uuid}.")


def _unlink(options: Options, output: Output) -> None:
    subject = _get_subject(options["uuid"])
    try:
        subject.delete()
    except HeldForLegalReasons as refusal:
        raise CommandError(f"Nothing was erased or unlinked. {refusal}") from refusal
    output.write(f"User {subject.user_id} was unlinked: subject {options['uuid']} was deleted.")


def _list(options: Options, output: Output) -> None:
    subjects = PairwiseSubject.objects.order_by("pk")
    if options["user"] is not None:
        subjects = subjects.filter(user=get_user_by_pk(options["user"]))
    rows = subjects.values("uuid", "user", "issuer", "first_seen_at", "last_seen_at")
    for row in rows.iterator():
        texts = {name: format_value(value) for name, value in row.items()}
        output.write_row(texts, lambda row: "  ".join(row.values()))
    if not rows.exists() and not output.as_json:
        output.write("There are no linked persons.")


@sensitive_variables()
def _export(options: Options, output: Output) -> None:
    user, subjects = _get_person(options)
    path = options["output"]
    try:
        with create_private_file(path) if path else nullcontext() as file:
            export = export_person(
                user, subjects, claim_declarations=conf.claims(), origin=current_origin(), now=clock.now()
            )
            # Escaped on a terminal, because values sent by a provider may hold control sequences.
            text = json.dumps(export.document, indent=2, ensure_ascii=file is None)
            if file is not None:
                file.write(f"{text}\n")
    except AuditUnavailable as refusal:
        raise CommandError(f"Nothing was exported. {refusal}") from refusal
    except OSError as error:
        raise CommandError(f"{path} cannot be created: {error.strerror}.") from error
    output.write(text if path is None else f"The data of user {user.pk} is in {path}.")
    if export.withheld_count:
        text = "events and claims are withheld, because a legal hold suspends the accounting."
        output.stderr.write(f"For staff only: {export.withheld_count} {text}")
    if export.unreadable_items:
        raise CommandError(f"Some data could not be read: {', '.join(export.unreadable_items)}.")


def _erase(options: Options, output: Output) -> None:
    user, subjects = _get_person(options)
    names = ", ".join(str(subject.uuid) for subject in subjects) or "none"
    message = f"All data of user {user.pk} as subject {names} will be erased permanently."
    if not options["yes"] and not sys.stdin.isatty():
        raise CommandError(f"{message} Add --yes to confirm.")
    if not options["yes"] and input(f"{message} Type yes: ").strip() != "yes":
        raise CommandError("Nothing was erased.")
    try:
        erased = erase_person(user, subjects, origin=current_origin(), now=clock.now())
    except PhiOidcError as refusal:
        raise CommandError(f"Nothing was erased. {refusal}") from refusal
    output.write(
        f"User {user.pk}: {len(erased.subject_uuids)} subjects, {erased.claim_count} claims, "
        f"{erased.session_count} sessions, {erased.identifier_count} pairwise identifiers and "
        f"{erased.invitation_count} invitations were erased. The account was not deleted."
    )
    try:
        destroy_unused_keys(now=clock.now())
    except (KeyMissing, AuditUnavailable) as error:
        raise CommandError(f"Retention keys could not be destroyed yet; phi_oidc.scrub tries again: {error}") from error


def _get_person(options: Options) -> tuple[AbstractBaseUser, list[PairwiseSubject]]:
    if options["user"] is not None:
        user = get_user_by_pk(options["user"])
        return user, list(PairwiseSubject.objects.filter(user=user.pk).order_by("pk"))
    subject = _get_subject(options["uuid"])
    return subject.user, [subject]


def _get_subject(subject_uuid: uuid.UUID) -> PairwiseSubject:
    subject = PairwiseSubject.objects.select_related("user").filter(uuid=subject_uuid).first()
    if subject is None:
        raise CommandError(f"There is no subject {subject_uuid}.")
    return subject
