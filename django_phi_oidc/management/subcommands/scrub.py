"""Erases overdue claims or all claims of one person, or reports which claims are stored."""

from argparse import ArgumentParser
from dataclasses import asdict

from django.core.management.base import CommandError

from ..._internal import clock
from ...audit.request_context import current_origin
from ...claims.retention import destroy_unused_keys, scrub_due_claims, scrub_past_limit, scrub_user
from ...claims.retention_report import RetentionKeySummary as KeySummary
from ...claims.retention_report import RetentionReport, StoredClaimSummary, create_retention_report, find_key_summary
from ...crypto import retention_keys
from ...errors import AuditUnavailable, HeldForLegalReasons, KeyMissing
from ._arguments import Options, get_user_by_pk
from ._output import Output, format_value


def add_arguments(parser: ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--user", metavar="PK", help="erase all claims of this user, also those of live sessions")
    report_help = "erase nothing and report the stored claims; status 1 if some are overdue by more than an hour"
    group.add_argument("--report", action="store_true", help=report_help)
    parser.add_argument("--json", action="store_true", help="with --report: one object")
    parser.set_defaults(handler=handle)


def handle(options: Options, output: Output) -> None:
    """Erase or report. Raises: CommandError if claims or keys could not be erased, or something is overdue."""
    if options["report"]:
        _print_report(output)
    elif output.as_json:
        raise CommandError("--json is for --report.")
    elif options["user"] is not None:
        _scrub_user(options["user"], output)
    else:
        _scrub_due(output)


def _scrub_user(pk: str, output: Output) -> None:
    try:
        count = scrub_user(get_user_by_pk(pk), origin=current_origin(), now=clock.now())
    except HeldForLegalReasons as refusal:
        raise CommandError(f"Nothing was erased. {refusal}") from refusal
    _destroy_unused_keys(count, output)


def _scrub_due(output: Output) -> None:
    now = clock.now()
    _destroy_unused_keys(scrub_due_claims(now=now) + scrub_past_limit(now=now), output)


def _destroy_unused_keys(erased_count: int, output: Output) -> None:
    text = f"{erased_count} claims were erased."
    if retention_keys.is_enabled():
        try:
            text += f" {len(destroy_unused_keys(now=clock.now()))} retention keys were destroyed."
        except (KeyMissing, AuditUnavailable) as error:
            raise CommandError(f"{text} Unused retention keys could not be destroyed: {error}") from error
    output.write(text)


def _print_report(output: Output) -> None:
    report, keys, fault = create_retention_report(now=clock.now()), None, ""
    try:
        keys = find_key_summary()
    except KeyMissing as error:
        fault = str(error)
    row = {**asdict(report), "retention_keys": asdict(keys) if keys else None}
    output.write_row(row, lambda _: "\n".join(_format_report(report, keys)))
    if report.is_late:
        fault = f"{report.overdue} claims are overdue, some for more than an hour: does phi_oidc.scrub run? {fault}"
    if fault:
        raise CommandError(fault.strip())


def _format_report(report: RetentionReport, keys: KeySummary | None) -> list[str]:
    if not report.claims:
        return ["No claims are stored.", *_format_keys(keys)]
    names = ("count", "of_sessions", "held")
    count, live, held = (sum(getattr(summary, name) for summary in report.claims) for name in names)
    total = (
        f"{count} claims are stored: {live} of live sessions, {report.overdue} overdue, {held} kept by a legal hold."
    )
    return [*map(_format_claims, report.claims), total, f"{report.holds} legal holds are active.", *_format_keys(keys)]


def _format_claims(summary: StoredClaimSummary) -> str:
    until = f"until {format_value(summary.until)}" if summary.until else "until their sessions end"
    text = f"{summary.name} ({summary.purpose}): {summary.count}, since {format_value(summary.since)}, {until}"
    if summary.of_sessions:
        text += f"; {summary.of_sessions} of live sessions"
    if summary.overdue_since:
        text += f"; {summary.overdue} overdue, the first since {format_value(summary.overdue_since)}"
    if summary.held:
        text += f"; {summary.held} kept by a legal hold, {summary.held_past_their_time} of them past their time"
    return text


def _format_keys(keys: KeySummary | None) -> list[str]:
    if keys is None:
        return []
    oldest = f", the oldest of {keys.oldest}" if keys.oldest else ""
    days_and_holds = (
        f"{keys.count} retention keys of days and holds exist{oldest}; {keys.of_holds} belong to legal holds."
    )
    return [days_and_holds, f"{keys.of_erased_persons} retention keys of erased persons are not destroyed yet."]
