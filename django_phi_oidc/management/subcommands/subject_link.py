"""Links persons to accounts, unlinks and lists them.

The `sub` comes on standard input: arguments stand in the shell's history and in the list of processes.
"""

import json
import sys
import uuid
from argparse import ArgumentParser
from collections.abc import Mapping
from getpass import getpass
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.core.management.base import CommandError, OutputWrapper
from django.views.decorators.debug import sensitive_variables

from ... import conf
from ..._internal import clock
from ...audit.events import Origin
from ...crypto import keyring
from ...errors import HeldForLegalReasons, PhiOidcError
from ...subjects.linking import link_existing_user
from ...subjects.models import PairwiseSubject
from ._arguments import get_user_by_pk


def add_arguments(parser: ArgumentParser) -> Any:
    """Declare the subcommands of `phi_oidc subject`, and return where those that need more are declared."""
    commands = parser.add_subparsers(dest="subject_command", required=True)
    link = commands.add_parser("link", help="link the person whose sub is read from standard input to a user")
    link.add_argument("--provider", required=True, metavar="NAME", help="the provider that knows the person so")
    link.add_argument("--user", required=True, metavar="PK", help="primary key of the user")
    unlink = commands.add_parser("unlink", help="end the sessions of a linked person, erase the claims, and unlink")
    unlink.add_argument("uuid", type=uuid.UUID, metavar="UUID", help="of the subject, as `list` shows it")
    listing = commands.add_parser("list", help="list the linked persons")
    listing.add_argument("--user", metavar="PK", help="of this user alone")
    listing.add_argument("--json", action="store_true", help="an object a line")
    return commands


def handle(options: Mapping[str, Any], *, stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    """Do what the subcommand says. Raises: CommandError when it is refused, or there is no such user or person."""
    {"link": _link, "unlink": _unlink_subject, "list": _list}[options["subject_command"]](options, stdout)


@sensitive_variables()
def _link(options: Mapping[str, Any], stdout: OutputWrapper) -> None:
    user, provider = get_user_by_pk(options["user"]), conf.providers().get(options["provider"])
    if provider is None:
        raise CommandError(f"There is no provider {options['provider']}.")
    sub = getpass("Subject (sub), not shown: ") if sys.stdin.isatty() else sys.stdin.read()
    try:
        subject = link_existing_user(
            user,
            sub=sub.strip(),
            provider=provider,
            keys=keyring.get_keys("subject"),
            origin=Origin(),
            now=clock.now(),
        )
    except (PhiOidcError, ObjectDoesNotExist) as refusal:
        raise CommandError(str(refusal)) from refusal
    stdout.write(f"User {user.pk} was linked: subject {subject.uuid}.")


def _unlink_subject(options: Mapping[str, Any], stdout: OutputWrapper) -> None:
    subject = PairwiseSubject.objects.filter(uuid=options["uuid"]).first()
    if subject is None:
        raise CommandError(f"There is no subject {options['uuid']}.")
    try:
        subject.delete()
    except HeldForLegalReasons as refusal:
        raise CommandError(f"Nothing was erased, and nobody unlinked. {refusal}") from refusal
    stdout.write(f"User {subject.user_id} was unlinked: subject {options['uuid']} is gone.")


def _list(options: Mapping[str, Any], stdout: OutputWrapper) -> None:
    subjects = PairwiseSubject.objects.order_by("pk")
    if options["user"] is not None:
        subjects = subjects.filter(user=get_user_by_pk(options["user"]))
    listed = 0
    for subject in subjects.iterator():
        listed += 1
        told = {
            "uuid": str(subject.uuid),
            "user": str(subject.user_id),
            "issuer": subject.issuer,
            "first_seen_at": subject.first_seen_at.isoformat(timespec="seconds"),
            "last_seen_at": subject.last_seen_at.isoformat(timespec="seconds"),
        }
        stdout.write(json.dumps(told) if options["json"] else "  ".join(told.values()))
    if not listed and not options["json"]:
        stdout.write("Nobody is linked.")
