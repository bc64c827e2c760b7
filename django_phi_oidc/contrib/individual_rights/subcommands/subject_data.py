"""Export and erase the data of a person (`phi_oidc subject export`, `erase`)."""

import json
import uuid
from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.core.management.base import CommandError
from django.views.decorators.debug import sensitive_variables

from .... import conf
from ...._internal import clock
from ...._internal.command_arguments import (
    Options,
    add_command,
    add_confirmation,
    add_dry_run,
    require_confirmation,
)
from ...._internal.command_output import Output
from ....audit.request_context import current_origin
from ....claims.retention import destroy_unused_keys
from ....errors import AuditUnavailable, HeldForLegalReasons, KeyMissing, PhiOidcError
from ....management.subcommands._arguments import (
    SUBJECT_UUID_HELP,
    USER_FORMS,
    build_user_row,
    describe_user,
    get_subject,
    get_user,
)
from ....subjects.models import PairwiseSubject
from ...common.private_files import create_private_file
from ..erasure import ErasureResult, erase_person, preview_erasure
from ..export import export_person


def add_subcommands(commands: Any) -> None:
    export = add_command(commands, "export", _export, "Export the data of a person as JSON.")
    _add_selection(export)
    export.add_argument(
        "--output", type=Path, metavar="FILE", help="A new file that only its owner can read."
    )
    erase = add_command(
        commands, "erase", _erase, "End the sessions of a person and erase the stored data."
    )
    _add_selection(erase)
    add_confirmation(erase)
    add_dry_run(erase)


def _add_selection(parser: ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("uuid", nargs="?", type=uuid.UUID, metavar="UUID", help=SUBJECT_UUID_HELP)
    group.add_argument("--user", metavar="USER", help=f"All subjects of this user: {USER_FORMS}.")


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
    """Return the members of the JSON object, and the numbers in words."""
    subjects = [str(subject_uuid) for subject_uuid in erased.subject_uuids]
    row = {
        **build_user_row(user),
        "subjects": subjects,
        "claims": erased.claim_count,
        "sessions": erased.session_count,
        "identifiers": erased.identifier_count,
        **erased.further_counts,
    }
    counts = [
        f"{len(subjects)} subjects",
        f"{erased.claim_count} claims",
        f"{erased.session_count} sessions",
        f"{erased.identifier_count} pairwise identifiers",
    ]
    for name, count in erased.further_counts.items():
        counts.append(f"{count} {name}")
    return row, f"User {row['user']}: {', '.join(counts[:-1])} and {counts[-1]}"


def _get_person(options: Options) -> tuple[AbstractBaseUser, list[PairwiseSubject]]:
    if options["user"] is not None:
        user = get_user(options["user"])
        return user, list(PairwiseSubject.objects.filter(user=user.pk).order_by("pk"))
    subject = get_subject(options["uuid"])
    return subject.user, [subject]
