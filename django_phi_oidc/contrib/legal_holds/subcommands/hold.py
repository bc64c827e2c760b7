"""Place, release and list legal holds, which keep the data of a person from being erased."""

import uuid
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.core.management.base import CommandError

from ...._internal import clock
from ...._internal.command_arguments import (
    Options,
    add_command,
    add_dry_run,
    build_argument_error,
    create_choice_parser,
    parse_time,
)
from ...._internal.command_output import Output, format_untrusted, format_value
from ....audit.request_context import current_origin
from ..accounting_suspensions import SUSPENDABLE_PURPOSES, AccountingSuspension
from ..legal_holds import list_active_holds, place_hold, release_hold
from ..models import LegalHold

READING_COMMANDS = ("hold list",)

MAX_REASON_LENGTH = 255


def add_arguments(parser: ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="hold_command", required=True, metavar="SUBCOMMAND")
    place = add_command(commands, "place", _place, "Keep all stored and future data of a person.")
    place.add_argument(
        "uuid", type=uuid.UUID, metavar="SUBJECT_UUID", help="The UUID that `subject list` shows."
    )
    reason_help = "A reference to the legal matter; not written to the audit log."
    place.add_argument("--reason", required=True, type=_parse_reason, help=reason_help)
    place.add_argument(
        "--until", type=parse_time, metavar="TIME", help="When the hold ends (default: never)."
    )
    suspend_help = (
        "When the accounting stops leaving out disclosures to an agency (45 CFR 164.528(a)(2))."
    )
    place.add_argument(
        "--suspend-accounting-until", type=parse_time, metavar="TIME", help=suspend_help
    )
    place.add_argument(
        "--agency", default="", metavar="NAME", help="The agency or official who requires this."
    )
    purposes = ", ".join(SUSPENDABLE_PURPOSES)
    purpose_help = (
        "The purpose of the disclosures to the agency: "
        f"{purposes}; may be repeated (default: HLEGAL)."
    )
    parse_purpose = create_choice_parser("suspendable purpose", SUSPENDABLE_PURPOSES)
    place.add_argument(
        "--purpose", action="append", type=parse_purpose, metavar="CODE", help=purpose_help
    )
    oral_help = "When the agency stated this orally (default: in writing); then 30 days at most."
    place.add_argument("--oral-statement", type=parse_time, metavar="TIME", help=oral_help)
    release = add_command(
        commands, "release", _release, "End a hold; the next scrub erases what is overdue."
    )
    release.add_argument(
        "hold", type=uuid.UUID, metavar="HOLD_ID", help="The id that `hold list` shows."
    )
    add_dry_run(release)
    listing = add_command(commands, "list", _list, "List the active holds.")
    listing.add_argument(
        "--subject", type=uuid.UUID, metavar="UUID", help="Only holds of this person."
    )
    listing.add_argument("--all", action="store_true", help="Also list holds that have ended.")


def _place(options: Options, output: Output) -> None:
    try:
        reason = options["reason"]
        until = options["until"]
        suspension = _find_suspension(options)
        hold = place_hold(
            options["uuid"],
            reason=reason,
            until=until,
            suspension=suspension,
            origin=current_origin(),
            now=clock.now(),
        )
    except ObjectDoesNotExist as error:
        raise CommandError(f"There is no subject {options['uuid']}.") from error
    except ValueError as error:
        raise CommandError(str(error)) from error
    row = {"id": str(hold.pk), "subject": str(options["uuid"])}
    output.confirm(row, f"Hold {hold.pk} keeps the data of subject {options['uuid']}.")


def _find_suspension(options: Options) -> AccountingSuspension | None:
    """Raises: CommandError if the time is missing."""
    purposes = options["purpose"]
    stated_at = options["oral_statement"]
    until = options["suspend_accounting_until"]
    if until is None:
        if options["agency"] or purposes or stated_at:
            raise build_argument_error(
                "A suspension of the accounting needs --suspend-accounting-until."
            )
        return None
    return AccountingSuspension(
        until=until,
        agency=options["agency"],
        purposes=purposes or ["HLEGAL"],
        oral_statement_at=stated_at,
    )


def _release(options: Options, output: Output) -> None:
    pk = options["hold"]
    is_dry_run = options["dry_run"]
    try:
        if is_dry_run:
            hold = LegalHold.objects.get(pk=pk)
            can_be_released = hold.released_at is None and hold.subject_id is not None
        else:
            can_be_released = release_hold(pk, origin=current_origin(), now=clock.now())
    except ObjectDoesNotExist as error:
        raise CommandError(f"There is no hold {pk}.") from error
    if not can_be_released:
        raise CommandError(f"Hold {pk} was released before.")
    if is_dry_run:
        output.preview({"id": str(pk)}, f"Hold {pk} would be released.")
    else:
        output.confirm({"id": str(pk)}, f"Hold {pk} was released.")


def _list(options: Options, output: Output) -> None:
    now = clock.now()

    if options["all"]:
        holds = LegalHold.objects.order_by("placed_at", "pk")
    else:
        holds = list_active_holds(now=now)

    if options["subject"] is not None:
        holds = holds.filter(subject__uuid=options["subject"])
    names = (
        *("reason", "placed_at", "placed_by", "until", "released_at", "released_by"),
        *("suspended_until", "agency", "oral_statement_at"),
    )
    for hold in holds.select_related("subject").iterator():
        if hold.subject:
            subject = str(hold.subject.uuid)
        else:
            subject = ""

        row = {"id": str(hold.pk), "subject": subject}
        row |= {name: format_value(getattr(hold, name)) for name in names}
        row |= {"suspended_purposes": hold.suspended_purposes}
        lasts = hold.released_at is None and (hold.until is None or hold.until > now)
        output.write_row({**row, "lasts": lasts}, _format_hold)
    if not holds.exists():
        output.write("There are no holds.")


def _format_hold(hold: Mapping[str, Any]) -> str:
    if hold["lasts"]:
        if hold["until"]:
            end = f"until {hold['until']}"
        else:
            end = "until it is released"
    elif hold["released_at"]:
        end = f"released {hold['released_at']}"
    else:
        end = "ended"
    subject = hold["subject"] or "(erased)"
    if hold["suspended_until"]:
        agency = format_untrusted(hold["agency"])
        end += (
            f", accounting of {' '.join(hold['suspended_purposes'])} suspended until "
            f"{hold['suspended_until']}"
        )
        end += f" ({'oral' if hold['oral_statement_at'] else 'written'} statement of {agency})"
    return (
        f"{hold['id']}  {subject}  placed {hold['placed_at']}, {end}: "
        f"{format_untrusted(hold['reason'])}"
    )


def _parse_reason(text: str) -> str:
    if len(text) > MAX_REASON_LENGTH:
        raise ArgumentTypeError(f"at most {MAX_REASON_LENGTH} characters")
    return text
