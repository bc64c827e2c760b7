"""Legal holds: while one lasts, nothing that is held of a person is erased."""

import json
import uuid
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.core.management.base import CommandError, OutputWrapper

from ..._internal import clock
from ...audit.events import Origin
from ...claims.legal_holds import list_active_holds, place_hold, release_hold
from ...claims.models import LegalHold
from ...errors import PhiOidcError

MAX_REASON_LENGTH = 255
"""Of a reason."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the subcommands of `phi_oidc hold`."""
    commands = parser.add_subparsers(dest="hold_command", required=True)
    place = commands.add_parser("place", help="keep all that is held of a person, and what comes later")
    place.add_argument("uuid", type=uuid.UUID, metavar="SUBJECT_UUID", help="as `subject list` shows it")
    place.add_argument(
        "--reason", required=True, type=_parse_reason, help="for people: a reference of the matter; not in the trail"
    )
    place.add_argument("--until", type=_parse_time, metavar="TIME", help="when it ends by itself; default: never")
    release = commands.add_parser("release", help="end a hold; what is past its time is erased by the next scrub")
    release.add_argument("hold", type=uuid.UUID, metavar="HOLD_ID", help="as `list` shows it")
    listing = commands.add_parser("list", help="list the holds that last")
    listing.add_argument("--subject", type=uuid.UUID, metavar="UUID", help="of this person alone")
    listing.add_argument("--all", action="store_true", help="those that are over, too")
    listing.add_argument("--json", action="store_true", help="an object a line")


def handle(options: Mapping[str, Any], *, stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    """Do what the subcommand says. Raises: CommandError when it is refused, or there is no such person or hold."""
    try:
        {"place": _place, "release": _release, "list": _list}[options["hold_command"]](options, stdout)
    except (PhiOidcError, ValueError) as refusal:
        raise CommandError(str(refusal)) from refusal


def _place(options: Mapping[str, Any], stdout: OutputWrapper) -> None:
    try:
        hold = place_hold(
            options["uuid"], reason=options["reason"], until=options["until"], origin=Origin(), now=clock.now()
        )
    except ObjectDoesNotExist as error:
        raise CommandError(f"There is no subject {options['uuid']}.") from error
    stdout.write(f"Hold {hold.pk} keeps all that is held of subject {options['uuid']}.")


def _release(options: Mapping[str, Any], stdout: OutputWrapper) -> None:
    try:
        released = release_hold(options["hold"], origin=Origin(), now=clock.now())
    except ObjectDoesNotExist as error:
        raise CommandError(f"There is no hold {options['hold']}.") from error
    if not released:
        raise CommandError(f"Hold {options['hold']} was released before.")
    stdout.write(f"Hold {options['hold']} was released.")


def _list(options: Mapping[str, Any], stdout: OutputWrapper) -> None:
    now = clock.now()
    holds = LegalHold.objects.order_by("placed_at", "pk") if options["all"] else list_active_holds(now=now)
    if options["subject"] is not None:
        holds = holds.filter(subject__uuid=options["subject"])
    listed = 0
    for hold in holds.select_related("subject").iterator():
        listed += 1
        told = {
            "id": str(hold.pk),
            "subject": str(hold.subject.uuid) if hold.subject else "",
            "reason": hold.reason,
            "placed_at": _format_time(hold.placed_at),
            "placed_by": hold.placed_by,
            "until": _format_time(hold.until),
            "released_at": _format_time(hold.released_at),
            "released_by": hold.released_by,
            "lasts": hold.released_at is None and (hold.until is None or hold.until > now),
        }
        stdout.write(json.dumps(told) if options["json"] else _format_hold(told))
    if not listed and not options["json"]:
        stdout.write("Nobody is held.")


def _format_hold(hold_data: Mapping[str, Any]) -> str:
    until = f"until {hold_data['until']}" if hold_data["until"] else "until it is released"
    ended = f"released {hold_data['released_at']}" if hold_data["released_at"] else "over"
    # Somebody typed it in a form; no terminal is to obey it.
    reason = hold_data["reason"] if hold_data["reason"].isprintable() else ascii(hold_data["reason"])
    subject = hold_data["subject"] or "(erased)"
    return f"{hold_data['id']}  {subject}  placed {hold_data['placed_at']}, {until if hold_data['lasts'] else ended}: {reason}"


def _format_time(time: datetime | None) -> str:
    return time.isoformat(timespec="seconds") if time else ""


def _parse_reason(text: str) -> str:
    if len(text) > MAX_REASON_LENGTH:
        raise ArgumentTypeError(f"{MAX_REASON_LENGTH} characters at most")
    return text


def _parse_time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError("a time is written as in 2026-11-24 or 2026-11-24T16:05:00+01:00") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)
