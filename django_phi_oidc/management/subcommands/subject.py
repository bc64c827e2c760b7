"""Link and invite persons, unlink and list them, and export, account for and erase their data.

The `sub` is read from standard input or a file: arguments are visible in the shell history and the
process list.
"""

import json
import sys
import uuid
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from getpass import getpass
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ObjectDoesNotExist
from django.core.management.base import CommandError
from django.views.decorators.debug import sensitive_variables

from ... import conf
from ..._internal import clock
from ...audit.request_context import current_origin
from ...claims.models import StoredClaim
from ...claims.retention import destroy_unused_keys
from ...contrib.individual_rights.erasure import ErasureResult, erase_person, preview_erasure
from ...contrib.individual_rights.export import export_person
from ...contrib.individual_rights.subcommands import subject_accounting
from ...contrib.invitations.subcommands import subject_invite
from ...contrib.invitations.subcommands.subject_link_csv import find_default_provider, link_csv
from ...crypto import keyring
from ...errors import AuditUnavailable, HeldForLegalReasons, KeyMissing, PhiOidcError
from ...sessions.models import OIDCSession
from ...subjects.linking import link_existing_user
from ...subjects.models import PairwiseSubject
from ._arguments import (
    USER_FORMS,
    Options,
    add_command,
    add_confirmation,
    add_dry_run,
    build_argument_error,
    build_user_row,
    describe_user,
    format_user,
    get_user,
    require_confirmation,
)
from ._files import create_private_file
from ._output import Output, format_value

READING_COMMANDS = ("subject list",)

UUID_HELP = "The UUID of the subject, as `list` shows it."
_LISTED_FIELDS = ("issuer", "first_seen_at", "last_seen_at")


def add_arguments(parser: ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="subject_command", required=True, metavar="SUBCOMMAND")
    link = add_command(
        commands,
        "link",
        _link,
        "Link the person whose sub is read from standard input to a user, or many by a file.",
    )
    provider_help = "The provider that issued the sub; required if several are declared."
    link.add_argument("--provider", metavar="NAME", help=provider_help)
    linked = link.add_mutually_exclusive_group(required=True)
    linked.add_argument("--user", metavar="USER", help=f"The user to link: {USER_FORMS}.")
    csv_help = (
        "A CSV file with the columns `user`, `sub` and optionally `provider`; -: standard input."
    )
    linked.add_argument("--csv", metavar="FILE", help=csv_help)
    unlink = add_command(
        commands, "unlink", _unlink, "End the sessions of a person, erase the claims, and unlink."
    )
    unlink.add_argument("uuid", type=uuid.UUID, metavar="UUID", help=UUID_HELP)
    listing = add_command(commands, "list", _list, "List the linked persons.")
    listing.add_argument(
        "--user", metavar="USER", help=f"Only subjects of this user: {USER_FORMS}."
    )
    export = add_command(commands, "export", _export, "Export the data of a person as JSON.")
    accounting = add_command(
        commands, "accounting", subject_accounting.handle, "List who accessed a person's record."
    )
    subject_accounting.add_arguments(accounting)
    invite_help = "Create activation codes, which are shown once, or revoke one."
    subject_invite.add_arguments(
        add_command(commands, "invite", subject_invite.handle, invite_help)
    )
    erase = add_command(
        commands, "erase", _erase, "End the sessions of a person and erase the stored data."
    )
    for command in (export, erase):
        group = command.add_mutually_exclusive_group(required=True)
        group.add_argument("uuid", nargs="?", type=uuid.UUID, metavar="UUID", help=UUID_HELP)
        group.add_argument(
            "--user", metavar="USER", help=f"All subjects of this user: {USER_FORMS}."
        )
    export.add_argument(
        "--output", type=Path, metavar="FILE", help="A new file that only its owner can read."
    )
    add_confirmation(erase)
    for command in (link, unlink, erase):
        add_dry_run(command)


@sensitive_variables()
def _link(options: Options, output: Output) -> None:
    if options["csv"] is not None:
        link_csv(options, output)
        return
    if options["dry_run"]:
        raise build_argument_error("--dry-run requires --csv.")
    user = get_user(options["user"])
    provider = find_default_provider(options["provider"])
    if provider is None:
        raise build_argument_error(
            f"Several providers are declared. Add --provider: {', '.join(conf.providers())}."
        )

    if sys.stdin.isatty():
        sub = getpass("Subject (sub), not shown: ")
    else:
        sub = sys.stdin.read()

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
    row = {**build_user_row(user), "uuid": str(subject.uuid)}
    output.confirm(row, f"User {row['user']} was linked: subject {row['uuid']}.")


def _unlink(options: Options, output: Output) -> None:
    subject = _get_subject(options["uuid"])
    user = subject.user
    row = {**build_user_row(user), "uuid": str(subject.uuid)}
    try:
        if options["dry_run"]:
            _preview_unlink(subject, row, output)
            return
        subject.delete()
    except HeldForLegalReasons as refusal:
        raise CommandError(f"Nothing was erased or unlinked. {refusal}") from refusal
    output.confirm(row, f"User {row['user']} was unlinked: subject {row['uuid']} was deleted.")


def _preview_unlink(subject: PairwiseSubject, row: Mapping[str, Any], output: Output) -> None:
    """Raises: HeldForLegalReasons."""
    if subject.is_held(now=clock.now()):
        raise HeldForLegalReasons
    sessions = OIDCSession.objects.live().filter(subject=subject.pk).count()
    claims = StoredClaim.objects.filter(subject=subject.pk).count()
    text = f"User {row['user']} would be unlinked: subject {row['uuid']} would be deleted"
    output.preview(
        {**row, "sessions": sessions, "claims": claims},
        f"{text}, {sessions} sessions would be ended, and {claims} claims would be erased.",
    )


def _list(options: Options, output: Output) -> None:
    subjects = PairwiseSubject.objects.order_by("pk")
    if options["user"] is not None:
        subjects = subjects.filter(user=get_user(options["user"]))
    rows = subjects.values_list(
        "uuid", f"user__{get_user_model().USERNAME_FIELD}", "user", *_LISTED_FIELDS
    )
    for subject_uuid, name, pk, *values in rows.iterator():
        row = {"uuid": str(subject_uuid), "user": format_user(name, pk), "user_pk": str(pk)}
        row |= zip(_LISTED_FIELDS, map(format_value, values), strict=True)
        output.write_row(row, _format_subject)
    if not rows.exists():
        output.write("There are no linked persons.")


def _format_subject(subject: Mapping[str, Any]) -> str:
    return "  ".join(subject[name] for name in ("uuid", "user", *_LISTED_FIELDS))


@sensitive_variables()
def _export(options: Options, output: Output) -> None:
    user, subjects = _get_person(options)
    path = options["output"]
    try:
        with create_private_file(path) if path else nullcontext() as file:
            export = export_person(
                user,
                subjects,
                claim_declarations=conf.claims(),
                origin=current_origin(),
                now=clock.now(),
            )
            # Escaped on a terminal, because values sent by a provider may hold control sequences.
            text = json.dumps(export.document, indent=2, ensure_ascii=file is None)
            if file is not None:
                file.write(f"{text}\n")
    except AuditUnavailable as refusal:
        raise CommandError(f"Nothing was exported. {refusal}") from refusal
    except OSError as error:
        raise CommandError(f"{path} cannot be created: {error.strerror}.") from error
    if path is None:
        output.write_row(export.document, text)
    else:
        row = {**build_user_row(user), "file": str(path)}
        output.confirm(row, f"The data of user {row['user']} is in {path}.")
    if not subjects:
        output.warn(
            f"No person is linked to user {describe_user(user)}: is this the right account?"
        )
    if export.withheld_count:
        text = "events and claims are withheld, because a legal hold suspends the accounting."
        output.warn(f"For staff only: {export.withheld_count} {text}")
    if export.unreadable_items:
        raise CommandError(f"Some data could not be read: {', '.join(export.unreadable_items)}.")


def _erase(options: Options, output: Output) -> None:
    user, subjects = _get_person(options)
    if options["dry_run"]:
        _preview_erasure(user, subjects, output)
        return
    names = ", ".join(str(subject.uuid) for subject in subjects) or "none"
    question = (
        f"All data of user {describe_user(user)} as subject {names} will be erased permanently."
    )
    require_confirmation(question, options, refusal="Nothing was erased.")
    try:
        erased = erase_person(user, subjects, origin=current_origin(), now=clock.now())
    except PhiOidcError as refusal:
        raise CommandError(f"Nothing was erased. {refusal}") from refusal
    fault = ""
    try:
        destroy_unused_keys(now=clock.now())
    except (KeyMissing, AuditUnavailable) as error:
        fault = f"Retention keys could not be destroyed yet; phi_oidc.scrub tries again: {error}"
    row, counts = _describe_erasure(user, erased)
    output.confirm(row, f"{counts} were erased. The account was not deleted.", fault=fault)


def _preview_erasure(
    user: AbstractBaseUser, subjects: Sequence[PairwiseSubject], output: Output
) -> None:
    try:
        row, counts = _describe_erasure(user, preview_erasure(user, subjects, now=clock.now()))
    except HeldForLegalReasons as refusal:
        raise CommandError(f"Nothing would be erased. {refusal}") from refusal
    output.preview(row, f"{counts} would be erased. The account would not be deleted.")


def _describe_erasure(user: AbstractBaseUser, erased: ErasureResult) -> tuple[dict[str, Any], str]:
    subjects = [str(subject_uuid) for subject_uuid in erased.subject_uuids]
    row = {
        **build_user_row(user),
        "subjects": subjects,
        "claims": erased.claim_count,
        "sessions": erased.session_count,
        "identifiers": erased.identifier_count,
        "invitations": erased.invitation_count,
    }
    counts = (
        f"User {row['user']}: {len(subjects)} subjects, {erased.claim_count} claims, "
        f"{erased.session_count} sessions, {erased.identifier_count} pairwise identifiers and "
        f"{erased.invitation_count} invitations"
    )
    return row, counts


def _get_person(options: Options) -> tuple[AbstractBaseUser, list[PairwiseSubject]]:
    if options["user"] is not None:
        user = get_user(options["user"])
        return user, list(PairwiseSubject.objects.filter(user=user.pk).order_by("pk"))
    subject = _get_subject(options["uuid"])
    return subject.user, [subject]


def _get_subject(subject_uuid: uuid.UUID) -> PairwiseSubject:
    subject = PairwiseSubject.objects.select_related("user").filter(uuid=subject_uuid).first()
    if subject is None:
        raise CommandError(f"There is no subject {subject_uuid}.")
    return subject
