"""Tells who looked at a person's record."""

import csv
import json
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, OutputWrapper

from ... import conf
from ..._internal import clock
from ..._internal.csv_safety import escape_formulas
from ...audit.events import Action, Origin
from ...audit.search import RowUnreadable
from ...errors import AuditUnavailable
from ...individual_rights.accounting import (
    Disclosure,
    DisclosureAccounting,
    create_accounting,
    find_actor_accounts,
    get_accounting_start,
    get_display_name,
)
from ._arguments import get_user_by_pk

_MAX_DIGITS = 5
_COLUMNS = (
    *("occurred_at", "actor", "name", "own", "purpose", "purpose_name", "action", "resource", "claims"),
    *("emergency", "event"),
)
_ACTION_PREFIXES = {Action.CLAIM_REVEALED: "", Action.ACCESS_GRANTED: "", Action.SUBJECT_EXPORTED: "export: "}
AccountingRow = dict[str, Any]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `phi_oidc subject accounting`."""
    parser.add_argument("user", metavar="USER", help="primary key of the person's account")
    parser.add_argument(
        "--since",
        type=_parse_since,
        metavar="DATE|DAYS",
        help="a date or time, or how many days ago (default: six years)",
    )
    parser.add_argument("--all", action="store_true", help="what the person looked at, too")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="an object a line")
    form.add_argument("--csv", action="store_true", help="for a spreadsheet")


def handle(options: Mapping[str, Any], stdout: OutputWrapper) -> None:
    """Tell it. Raises: CommandError when nothing could be told, or not all; or there is no such user."""
    user, now = get_user_by_pk(options["user"]), clock.now()
    told = _create_accounting(user, options, now=now)
    write = _create_row_writer(options, stdout)
    try:
        for row in _iter_rows(told):
            write(row)
        begins = told.find_available_since()
    except (AuditUnavailable, RowUnreadable) as fault:
        raise CommandError(f"Not all could be told. {fault}") from fault
    if begins is not None:
        raise CommandError(f"What was before {_format_datetime(begins)} is in archives, and not told here.")


def _create_accounting(user: AbstractBaseUser, options: Mapping[str, Any], *, now: datetime) -> DisclosureAccounting:
    since: datetime | timedelta | None = options["since"]
    try:
        named_by = conf.patient_resources()
        return create_accounting(
            user,
            resources=named_by(user) if named_by else (),
            since=get_accounting_start(now)
            if since is None
            else now - since
            if isinstance(since, timedelta)
            else since,
            include_own=options["all"],
            origin=Origin(),
            now=now,
        )
    except (AuditUnavailable, ImproperlyConfigured) as refusal:
        raise CommandError(f"Nothing was told. {refusal}") from refusal


def _iter_rows(accounting: DisclosureAccounting) -> Iterator[AccountingRow]:
    for disclosures in accounting.iter_pages():
        accounts = find_actor_accounts(disclosures)
        for each in disclosures:
            yield _build_row(each, accounts.get(each.actor))


def _build_row(disclosure: Disclosure, actor_account: AbstractBaseUser | None) -> AccountingRow:
    return {
        "occurred_at": _format_datetime(disclosure.occurred_at),
        "actor": disclosure.actor,
        "name": get_display_name(actor_account),
        "own": disclosure.is_own,
        "purpose": disclosure.purpose,
        "purpose_name": disclosure.purpose_name,
        "action": disclosure.action,
        "resource": disclosure.resource,
        "claims": list(disclosure.claims),
        "emergency": disclosure.emergency,
        "event": str(disclosure.id),
    }


def _create_row_writer(options: Mapping[str, Any], stdout: OutputWrapper) -> Callable[[AccountingRow], None]:
    if options["json"]:
        return lambda row: stdout.write(json.dumps(row))
    if options["csv"]:
        sheet = csv.DictWriter(stdout, _COLUMNS)
        sheet.writeheader()
        return lambda row: sheet.writerow(
            {column: escape_formulas(_format_cell(value)) for column, value in row.items()}
        )
    return lambda row: stdout.write(_format_line(row))


def _format_cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return " ".join(value) if isinstance(value, list) else str(value)


def _format_line(row: AccountingRow) -> str:
    actor, name = row["actor"], row["name"]
    # A name may be the provider's word; no terminal is to obey it.
    shown = name if name.isprintable() else ascii(name)
    who = f"{shown or 'a member of staff'} ({actor})" if actor else "a command on the server"
    seen = " ".join(row["claims"]) or row["resource"]
    parts = [
        row["occurred_at"],
        "the person" if row["own"] else who,
        f"{row['purpose_name']} ({row['purpose']})" if row["purpose"] else "no purpose",
        _ACTION_PREFIXES.get(row["action"], f"{row['action']}: ") + seen,
        *([f"emergency {row['emergency']}"] if row["emergency"] else []),
    ]
    return "  ".join(parts)


def _format_datetime(time: datetime) -> str:
    return time.isoformat(timespec="seconds")


def _parse_since(text: str) -> datetime | timedelta:
    if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS:
        return timedelta(days=int(text))
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError("2026-11-24, a time such as 2026-11-24T16:05:00+01:00, or a number of days") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)
