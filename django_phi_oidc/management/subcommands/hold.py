"""Places, releases and lists legal holds, which keep the data of a person from being erased."""

import uuid
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.core.management.base import CommandError

from ..._internal import clock
from ...audit.request_context import current_origin
from ...claims.accounting_suspensions import SUSPENDABLE_PURPOSES, AccountingSuspension
from ...claims.legal_holds import list_active_holds, place_hold, release_hold
from ...claims.models import LegalHold
from ._arguments import Options, add_command, parse_time
from ._output import Output, format_untrusted, format_value

MAX_REASON_LENGTH = 255


def add_arguments(parser: ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="hold_command", required=True)
    place = add_command(commands, "place", _place, "keep all stored and future data of a person")
    place.add_argument("uuid", type=uuid.UUID, metavar="SUBJECT_UUID", help="as shown by `subject list`")
    reason_help = "a reference to the legal matter; not written to the audit log"
    place.add_argument("--reason", required=True, type=_parse_reason, help=reason_help)
    place.add_argument("--until", type=parse_time, metavar="TIME", help="when the hold ends (default: never)")
    suspend_help = "when the accounting stops leaving out disclosures to an agency (45 CFR 164.528(a)(2))"
    place.add_argument("--suspend-accounting-until", type=parse_time, metavar="TIME", help=suspend_help)
    place.add_argument("--agency", default="", metavar="NAME", help="the agency or official who requires this")
    purpose_help = "of the disclosures to the agency; may be repeated (default: HLEGAL)"
    place.add_argument("--purpose", action="append", choices=SUSPENDABLE_PURPOSES, help=purpose_help)
    oral_help = "when the agency stated this orally (default: in writing); then 30 days at most"
    place.add_argument("--oral-statement", type=parse_time, metavar="TIME", help=oral_help)
    release = add_command(commands, "release", _release, "end a hold; the next scrub erases what is overdue")
    release.add_argument("hold", type=uuid.UUID, metavar="HOLD_ID", help="as shown by `list`")
    listing = add_command(commands, "list", _list, "list the active holds")
    listing.add_argument("--subject", type=uuid.UUID, metavar="UUID", help="only holds of this person")
    listing.add_argument("--all", action="store_true", help="also list holds that have ended")
    listing.add_argument("--json", action="store_true", help="one object per line")


def _place(options: Options, output: Output) -> None:
    try:
        fields = {"reason": options["reason"], "until": options["until"], "suspension": _find_suspension(options)}
        hold = place_hold(options["uuid"], **fields, origin=current_origin(), now=clock.now())
    except ObjectDoesNotExist as error:
        raise CommandError(f"There is no subject {options['uuid']}.") from error
    except ValueError as error:
        raise CommandError(str(error)) from error
    output.write(f"Hold {hold.pk} keeps the data of subject {options['uuid']}.")


def _find_suspension(options: Options) -> AccountingSuspension | None:
    """Raises: CommandError if the time is missing."""
    purposes, stated_at, until = options["purpose"], options["oral_statement"], options["suspend_accounting_until"]
    if until is None:
        if options["agency"] or purposes or stated_at:
            raise CommandError("A suspension of the accounting needs --suspend-accounting-until.")
        return None
    fields = {"purposes": purposes or ["HLEGAL"], "oral_statement_at": stated_at}
    return AccountingSuspension(until=until, agency=options["agency"], **fields)


def _release(options: Options, output: Output) -> None:
    try:
        released = release_hold(options["hold"], origin=current_origin(), now=clock.now())
    except ObjectDoesNotExist as error:
        raise CommandError(f"There is no hold {options['hold']}.") from error
    if not released:
        raise CommandError(f"Hold {options['hold']} was released before.")
    output.write(f"Hold {options['hold']} was released.")


def _list(options: Options, output: Output) -> None:
    now = clock.now()
    holds = LegalHold.objects.order_by("placed_at", "pk") if options["all"] else list_active_holds(now=now)
    if options["subject"] is not None:
        holds = holds.filter(subject__uuid=options["subject"])
    names = (
        *("reason", "placed_at", "placed_by", "until", "released_at", "released_by"),
        *("suspended_until", "agency", "oral_statement_at"),
    )
    for hold in holds.select_related("subject").iterator():
        row = {"id": str(hold.pk), "subject": str(hold.subject.uuid) if hold.subject else ""}
        row |= {name: format_value(getattr(hold, name)) for name in names}
        row |= {"suspended_purposes": hold.suspended_purposes}
        lasts = hold.released_at is None and (hold.until is None or hold.until > now)
        output.write_row({**row, "lasts": lasts}, _format_hold)
    if not holds.exists() and not output.as_json:
        output.write("There are no holds.")


def _format_hold(hold: Mapping[str, Any]) -> str:
    if hold["lasts"]:
        end = f"until {hold['until']}" if hold["until"] else "until it is released"
    else:
        end = f"released {hold['released_at']}" if hold["released_at"] else "ended"
    subject = hold["subject"] or "(erased)"
    if hold["suspended_until"]:
        agency = format_untrusted(hold["agency"])
        end += f", accounting of {' '.join(hold['suspended_purposes'])} suspended until {hold['suspended_until']}"
        end += f" ({'oral' if hold['oral_statement_at'] else 'written'} statement of {agency})"
    return f"{hold['id']}  {subject}  placed {hold['placed_at']}, {end}: {format_untrusted(hold['reason'])}"


def _parse_reason(text: str) -> str:
    if len(text) > MAX_REASON_LENGTH:
        raise ArgumentTypeError(f"at most {MAX_REASON_LENGTH} characters")
    return text
