"""List who accessed a person's record (`phi_oidc subject accounting`)."""

import csv
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError

from ...._internal import clock
from ...._internal.command_arguments import Options, add_command, build_argument_error, parse_time
from ...._internal.command_output import Output, format_untrusted, format_value
from ....audit.events import Action
from ....audit.operators import OPERATOR_PREFIX
from ....audit.request_context import current_origin
from ....audit.search import RowUnreadable
from ....errors import AuditUnavailable
from ....management.subcommands._arguments import USER_FORMS, get_user
from ...common.csv_safety import escape_formulas
from .. import conf
from ..accounting import Disclosure, DisclosureAccounting, create_accounting, get_accounting_start

_MAX_DIGITS = 5
_COLUMNS = (
    "occurred_at",
    "actor",
    "name",
    "roles",
    "own",
    "on_behalf_of",
    "on_behalf_of_name",
    "purpose",
    "purpose_name",
    "action",
    "resource",
    "claims",
    "emergency",
    "event",
)
_ACTION_PREFIXES = {
    Action.CLAIM_REVEALED: "",
    Action.ACCESS_GRANTED: "",
    Action.SUBJECT_EXPORTED: "export: ",
}
AccountingRow = Mapping[str, Any]


def add_subcommands(commands: Any) -> None:
    parser = add_command(commands, "accounting", _list, "List who accessed a person's record.")
    parser.add_argument("user", metavar="USER", help=f"The account of the person: {USER_FORMS}.")
    since_help = "A date or time, or a number of days ago (default: six years)."
    parser.add_argument("--since", type=_parse_since, metavar="DATE|DAYS", help=since_help)
    parser.add_argument("--all", action="store_true", help="Include the person's own access.")
    parser.add_argument("--csv", action="store_true", help="Write CSV for a spreadsheet.")


def _list(options: Options, output: Output) -> None:
    """Print the disclosures. Raises: CommandError if there is no such user, or the list is
    incomplete.
    """
    if options["csv"] and output.as_json:
        raise build_argument_error("Choose --csv or --json.")
    user = get_user(options["user"])
    now = clock.now()
    try:
        accounting = _create_accounting(user, options, now=now)
        disclosures = accounting.list_all()
        withheld_count = accounting.count_withheld()
        available_since = accounting.find_available_since()
    except (AuditUnavailable, ImproperlyConfigured, RowUnreadable) as refusal:
        raise CommandError(f"Nothing was listed. {refusal}") from refusal
    write = _create_row_writer(options, output)
    for disclosure in disclosures:
        write(_build_row(disclosure))
    if conf.patient_resources() is None:
        output.warn(
            "PATIENT_RESOURCES is not set: the accesses that "
            "guarded views recorded are missing (W075)."
        )
    if accounting.suspended_purposes:
        # On standard error: the output is for the person, who must not learn of it.
        until = format_value(max(accounting.suspended_purposes.values()))
        output.warn(
            f"For staff only: {withheld_count} disclosures for "
            f"{', '.join(sorted(accounting.suspended_purposes))} are withheld, because a legal "
            f"hold suspends the accounting until {until}."
        )
    if available_since is not None:
        raise CommandError(
            f"Events before {format_value(available_since)} are in archives and not listed here."
        )


def _create_accounting(
    user: AbstractBaseUser, options: Options, *, now: datetime
) -> DisclosureAccounting:
    if options["since"] is None:
        since = get_accounting_start(now)
    elif isinstance(options["since"], timedelta):
        since = now - options["since"]
    else:
        since = options["since"]

    get_resources = conf.patient_resources()
    if get_resources:
        resources = get_resources(user)
    else:
        resources = ()

    return create_accounting(
        user,
        resources=resources,
        since=since,
        include_own=options["all"],
        origin=current_origin(),
        now=now,
    )


def _build_row(disclosure: Disclosure) -> AccountingRow:
    row = {}
    for name in _COLUMNS:
        row[name] = getattr(disclosure, name, None)
    row |= {"occurred_at": format_value(disclosure.occurred_at), "name": disclosure.recipient.name}
    row["roles"] = list(disclosure.recipient.roles)
    row["on_behalf_of_name"] = disclosure.represented.name
    return row | {
        "own": disclosure.is_own,
        "claims": list(disclosure.claims),
        "event": str(disclosure.id),
    }


def _create_row_writer(options: Options, output: Output) -> Callable[[AccountingRow], None]:
    if not options["csv"]:
        return lambda row: output.write_row(row, _format_line)
    sheet = csv.DictWriter(output.stdout, _COLUMNS)
    sheet.writeheader()

    def write_cells(row: AccountingRow) -> None:
        cells = {}
        for column, value in row.items():
            cells[column] = escape_formulas(_format_cell(value))
        sheet.writerow(cells)

    return write_cells


def _format_cell(value: Any) -> str:
    if value is True:
        return "yes"
    if value is False:
        return ""
    if isinstance(value, list):
        return " ".join(value)
    return str(value)


def _format_line(row: AccountingRow) -> str:
    actor = row["actor"]
    name = format_untrusted(row["name"])

    if actor.startswith(OPERATOR_PREFIX):
        nameless = "a command on the server"
    else:
        nameless = "a member of staff"

    roles = "".join(f", {format_untrusted(role)}" for role in row["roles"])

    if actor:
        who = f"{name or nameless}{roles} ({actor})"
    else:
        who = "the system"

    if row["own"]:
        who = "the person"

    if row["on_behalf_of"]:
        represented = format_untrusted(row["on_behalf_of_name"]) or "an account"
        who = f"{who} on behalf of {represented} ({row['on_behalf_of']})"

    if row["purpose"]:
        purpose = f"{row['purpose_name']} ({row['purpose']})"
    else:
        purpose = "no purpose"

    data = " ".join(row["claims"]) or row["resource"]
    action_prefix = _ACTION_PREFIXES.get(row["action"], f"{row['action']}: ")
    parts = [row["occurred_at"], who, purpose, action_prefix + data]
    if row["emergency"]:
        parts.append(f"emergency {row['emergency']}")
    return "  ".join(parts)


def _parse_since(text: str) -> datetime | timedelta:
    if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS:
        return timedelta(days=int(text))
    try:
        return parse_time(text)
    except ArgumentTypeError as error:
        raise ArgumentTypeError(f"{error}, or as a number of days") from error
