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

from .. import clock, conf
from ..audit.browsing import RowUnreadable
from ..audit.events import Action, Origin
from ..errors import AuditUnavailable
from ..spreadsheets import inert
from ..subjects.cli import named_user
from .reporting import Accounting, Disclosure, account, accounts_of, name_of, six_years_before

_MOST_DIGITS = 5
_COLUMNS = (
    *("occurred_at", "actor", "name", "own", "purpose", "purpose_name", "action", "resource", "claims"),
    *("emergency", "event"),
)
_ACTS = {Action.CLAIM_REVEALED: "", Action.ACCESS_GRANTED: "", Action.SUBJECT_EXPORTED: "export: "}
Row = dict[str, Any]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `phi_oidc subject accounting`."""
    parser.add_argument("user", metavar="USER", help="primary key of the person's account")
    parser.add_argument(
        "--since", type=_since, metavar="DATE|DAYS", help="a date or time, or how many days ago (default: six years)"
    )
    parser.add_argument("--all", action="store_true", help="what the person looked at, too")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="an object a line")
    form.add_argument("--csv", action="store_true", help="for a spreadsheet")


def handle(options: Mapping[str, Any], stdout: OutputWrapper) -> None:
    """Tell it. Raises: CommandError when nothing could be told, or not all; or there is no such user."""
    user, now = named_user(options["user"]), clock.now()
    told = _accounting(user, options, now=now)
    write = _writer(options, stdout)
    try:
        for row in _rows(told):
            write(row)
        begins = told.begins_at()
    except (AuditUnavailable, RowUnreadable) as fault:
        raise CommandError(f"Not all could be told. {fault}") from fault
    if begins is not None:
        raise CommandError(f"What was before {_at(begins)} is in archives, and not told here.")


def _accounting(user: AbstractBaseUser, options: Mapping[str, Any], *, now: datetime) -> Accounting:
    since: datetime | timedelta | None = options["since"]
    try:
        named_by = conf.patient_resources()
        return account(
            user,
            resources=named_by(user) if named_by else (),
            since=six_years_before(now) if since is None else now - since if isinstance(since, timedelta) else since,
            include_own=options["all"],
            origin=Origin(),
            now=now,
        )
    except (AuditUnavailable, ImproperlyConfigured) as refusal:
        raise CommandError(f"Nothing was told. {refusal}") from refusal


def _rows(told: Accounting) -> Iterator[Row]:
    for disclosures in told.pages():
        accounts = accounts_of(disclosures)
        for each in disclosures:
            yield _row(each, accounts.get(each.actor))


def _row(disclosure: Disclosure, who: AbstractBaseUser | None) -> Row:
    return {
        "occurred_at": _at(disclosure.occurred_at),
        "actor": disclosure.actor,
        "name": name_of(who),
        "own": disclosure.is_own,
        "purpose": disclosure.purpose,
        "purpose_name": disclosure.purpose_name,
        "action": disclosure.action,
        "resource": disclosure.resource,
        "claims": list(disclosure.claims),
        "emergency": disclosure.emergency,
        "event": str(disclosure.id),
    }


def _writer(options: Mapping[str, Any], stdout: OutputWrapper) -> Callable[[Row], None]:
    if options["json"]:
        return lambda row: stdout.write(json.dumps(row))
    if options["csv"]:
        sheet = csv.DictWriter(stdout, _COLUMNS)
        sheet.writeheader()
        return lambda row: sheet.writerow({column: inert(_cell(value)) for column, value in row.items()})
    return lambda row: stdout.write(_line(row))


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return " ".join(value) if isinstance(value, list) else str(value)


def _line(row: Row) -> str:
    actor, name = row["actor"], row["name"]
    # A name may be the provider's word; no terminal is to obey it.
    shown = name if name.isprintable() else ascii(name)
    who = f"{shown or 'a member of staff'} ({actor})" if actor else "a command on the server"
    seen = " ".join(row["claims"]) or row["resource"]
    parts = [
        row["occurred_at"],
        "the person" if row["own"] else who,
        f"{row['purpose_name']} ({row['purpose']})" if row["purpose"] else "no purpose",
        _ACTS.get(row["action"], f"{row['action']}: ") + seen,
        *([f"emergency {row['emergency']}"] if row["emergency"] else []),
    ]
    return "  ".join(parts)


def _at(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _since(text: str) -> datetime | timedelta:
    if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS:
        return timedelta(days=int(text))
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError("2026-11-24, a time such as 2026-11-24T16:05:00+01:00, or a number of days") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)
