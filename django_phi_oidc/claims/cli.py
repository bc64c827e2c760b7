"""Erase the claims whose time is over, or all of one person; or tell what is held."""

import json
from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date, datetime
from typing import Any

from django.core.management.base import CommandError, OutputWrapper

from .. import buckets, clock
from ..audit.events import Origin
from ..errors import AuditUnavailable, HeldForLegalReasons, KeyMissing
from ..subjects.cli import named_user
from .lapsing import destroy_lapsed
from .reporting import ClaimsHeld, KeysHeld, Report, report_claims, report_keys
from .scrubbing import scrub_due, scrub_user


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `phi_oidc scrub`."""
    act = parser.add_mutually_exclusive_group()
    act.add_argument("--user", metavar="PK", help="erase all claims of this user, live sessions too")
    act.add_argument(
        "--report",
        action="store_true",
        help="erase nothing, and tell what is held; status 1 when some of it is overdue by more than an hour",
    )
    parser.add_argument("--json", action="store_true", help="with --report: one object")


def handle(options: Mapping[str, Any], *, stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    """Do what the options say. Raises: CommandError when not all of it could be done, or something is overdue."""
    if options.get("report"):
        _report(stdout, as_json=options["json"])
    elif options.get("json"):
        raise CommandError("--json is for --report.")
    elif options.get("user") is not None:
        _scrub_user(options["user"], stdout)
    else:
        _scrub_due(stdout)


def _scrub_user(pk: str, stdout: OutputWrapper) -> None:
    try:
        erased = scrub_user(named_user(pk), origin=Origin(), now=clock.now())
    except HeldForLegalReasons as refusal:
        raise CommandError(f"Nothing was erased. {refusal}") from refusal
    stdout.write(f"{erased} claims were erased.")


def _scrub_due(stdout: OutputWrapper) -> None:
    now = clock.now()
    told = f"{scrub_due(now=now)} claims were erased."
    if buckets.is_used():
        try:
            told += f" {len(destroy_lapsed(now=now))} retention keys were destroyed."
        except (KeyMissing, AuditUnavailable) as error:
            raise CommandError(f"{told} Retention keys are left that no claim needs: {error}") from error
    stdout.write(told)


def _report(stdout: OutputWrapper, *, as_json: bool) -> None:
    report, keys, fault = report_claims(now=clock.now()), None, ""
    try:
        keys = report_keys()
    except KeyMissing as error:
        fault = str(error)
    if as_json:
        told = {**asdict(report), "retention_keys": asdict(keys) if keys else None}
        stdout.write(json.dumps(told, default=_at))
    else:
        for line in _lines(report, keys):
            stdout.write(line)
    if report.is_late:
        fault = f"{report.overdue} claims are overdue, some for more than an hour: does phi_oidc.scrub run? {fault}"
    if fault:
        raise CommandError(fault.strip())


def _lines(report: Report, keys: KeysHeld | None) -> list[str]:
    if not report.claims:
        return ["No claim is held.", *_of_keys(keys)]
    count, overdue = sum(each.count for each in report.claims), report.overdue
    of_sessions, held = (sum(getattr(each, name) for each in report.claims) for name in ("of_sessions", "held"))
    total = f"{count} claims are held: {of_sessions} of live sessions, {overdue} overdue, {held} kept by a legal hold."
    return [*map(_of_claims, report.claims), total, f"{report.holds} legal holds last.", *_of_keys(keys)]


def _of_claims(held: ClaimsHeld) -> str:
    until = f"until {_at(held.until)}" if held.until else "until their sessions end"
    told = f"{held.name} ({held.purpose}): {held.count}, since {_at(held.since)}, {until}"
    if held.of_sessions:
        told += f"; {held.of_sessions} of live sessions"
    if held.overdue_since:
        told += f"; {held.overdue} overdue, the first since {_at(held.overdue_since)}"
    if held.held:
        told += f"; {held.held} kept by a legal hold, {held.held_past_their_time} of them past their time"
    return told


def _of_keys(keys: KeysHeld | None) -> list[str]:
    if keys is None:
        return []
    oldest = f", the oldest of {keys.oldest}" if keys.oldest else ""
    return [f"{keys.count} retention keys exist{oldest}; {keys.of_holds} of them of holds."]


def _at(moment: date) -> str:
    return moment.isoformat(timespec="seconds") if isinstance(moment, datetime) else moment.isoformat()
