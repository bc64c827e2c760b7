"""Link persons to users, list and unlink them. Apps add further subcommands.

The `sub` is read from standard input or a file: arguments are visible in the shell history and the
process list.
"""

import sys
import uuid
from argparse import ArgumentParser
from collections.abc import Mapping
from getpass import getpass
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ObjectDoesNotExist
from django.core.management.base import CommandError
from django.views.decorators.debug import sensitive_variables

from ... import conf
from ..._internal import clock
from ..._internal.app_configs import add_nested_subcommands, list_installed_features
from ..._internal.command_arguments import Options, add_command, add_dry_run, build_argument_error
from ..._internal.command_output import Output, format_value
from ...audit.request_context import current_origin
from ...claims.models import StoredClaim
from ...crypto import keyring
from ...errors import HeldForLegalReasons
from ...sessions.models import OIDCSession
from ...subjects.linking import link_existing_user
from ...subjects.models import PairwiseSubject
from ._arguments import (
    SUBJECT_UUID_HELP,
    USER_FORMS,
    build_user_row,
    find_default_provider,
    format_user,
    get_subject,
    get_user,
)

READING_COMMANDS = ("subject list",)
_LISTED_FIELDS = ("issuer", "first_seen_at", "last_seen_at")


def add_arguments(parser: ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="subject_command", required=True, metavar="SUBCOMMAND")
    link = add_command(
        commands,
        "link",
        _link,
        "Link the person whose sub is read from standard input to a user.",
    )
    provider_help = "The provider that issued the sub; required if several are declared."
    link.add_argument("--provider", metavar="NAME", help=provider_help)
    sources = link.add_mutually_exclusive_group(required=True)
    sources.add_argument("--user", metavar="USER", help=f"The user to link: {USER_FORMS}.")
    for config in list_installed_features():
        for module in config.import_link_sources():
            module.add_source(link, sources)
    unlink = add_command(
        commands, "unlink", _unlink, "End the sessions of a person, erase the claims, and unlink."
    )
    unlink.add_argument("uuid", type=uuid.UUID, metavar="UUID", help=SUBJECT_UUID_HELP)
    listing = add_command(commands, "list", _list, "List the linked persons.")
    listing.add_argument(
        "--user", metavar="USER", help=f"Only subjects of this user: {USER_FORMS}."
    )
    add_dry_run(unlink)
    add_nested_subcommands("subject", commands)


@sensitive_variables()
def _link(options: Options, output: Output) -> None:
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
    subject = get_subject(options["uuid"])
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
