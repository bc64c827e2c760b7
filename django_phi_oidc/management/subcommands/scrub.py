"""Erase the claims whose time is over, or all of one person; or tell what is held."""

import json
from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date, datetime
from typing import Any

from django.core.management.base import CommandError, OutputWrapper

from ..._internal import clock
from ...audit.events import Origin
from ...claims.retention import destroy_unused_keys, scrub_due_claims, scrub_user
from ...claims.retention_report import (
    RetentionKeySummary,
    RetentionReport,
    StoredClaimSummary,
    create_retention_report,
    find_key_summary,
)
from ...crypto import retention_keys
from ...errors import AuditUnavailable, HeldForLegalReasons, KeyMissing
from ._arguments import get_user_by_pk


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
        _print_report(stdout, as_json=options["json"])
    elif options.get("json"):
        raise CommandError("--json is for --report.")
    elif options.get("user") is not None:
        _scrub_user(options["user"], stdout)
    else:
        _scrub_due(stdout)


def _scrub_user(pk: str, stdout: OutputWrapper) -> None:
    try:
        erased = scrub_user(get_user_by_pk(pk), origin=Origin(), now=clock.now())
    except HeldForLegalReasons as refusal:
        raise CommandError(f"Nothing was erased. {refusal}") from refusal
    stdout.write(f"{erased} claims were erased.")


def _scrub_due(stdout: OutputWrapper) -> None:
    now = clock.now()
    told = f"{scrub_due_claims(now=now)} claims were erased."
    if retention_keys.is_enabled():
        try:
            told += f" {len(destroy_unused_keys(now=now))} retention keys were destroyed."
        except (KeyMissing, AuditUnavailable) as error:
            raise CommandError(f"{told} Retention keys are left that no claim needs: {error}") from error
    stdout.write(told)


def _print_report(stdout: OutputWrapper, *, as_json: bool) -> None:
    report, keys, fault = create_retention_report(now=clock.now()), None, ""
    try:
        keys = find_key_summary()
    except KeyMissing as error:
        fault = str(error)
    if as_json:
        told = {**asdict(report), "retention_keys": asdict(keys) if keys else None}
        stdout.write(json.dumps(told, default=_format_time))
    else:
        for line in _format_report(report, keys):
            stdout.write(line)
    if report.is_late:
        fault = f"{report.overdue} claims are overdue, some for more than an hour: does phi_oidc.scrub run? {fault}"
    if fault:
        raise CommandError(fault.strip())


def _format_report(report: RetentionReport, keys: RetentionKeySummary | None) -> list[str]:
    if not report.claims:
        return ["No claim is held.", *_format_keys(keys)]
    count, overdue = sum(each.count for each in report.claims), report.overdue
    of_sessions, held = (sum(getattr(each, name) for each in report.claims) for name in ("of_sessions", "held"))
    total = f"{count} claims are held: {of_sessions} of live sessions, {overdue} overdue, {held} kept by a legal hold."
    return [*map(_format_claims, report.claims), total, f"{report.holds} legal holds last.", *_format_keys(keys)]


def _format_claims(summary: StoredClaimSummary) -> str:
    until = f"until {_format_time(summary.until)}" if summary.until else "until their sessions end"
    told = f"{summary.name} ({summary.purpose}): {summary.count}, since {_format_time(summary.since)}, {until}"
    if summary.of_sessions:
        told += f"; {summary.of_sessions} of live sessions"
    if summary.overdue_since:
        told += f"; {summary.overdue} overdue, the first since {_format_time(summary.overdue_since)}"
    if summary.held:
        told += f"; {summary.held} kept by a legal hold, {summary.held_past_their_time} of them past their time"
    return told


def _format_keys(keys: RetentionKeySummary | None) -> list[str]:
    if keys is None:
        return []
    oldest = f", the oldest of {keys.oldest}" if keys.oldest else ""
    return [f"{keys.count} retention keys exist{oldest}; {keys.of_holds} of them of holds."]


def _format_time(time: date) -> str:
    return time.isoformat(timespec="seconds") if isinstance(time, datetime) else time.isoformat()
