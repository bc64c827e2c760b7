"""Erase overdue claims or all claims of one person, or report which claims are stored."""

from argparse import ArgumentParser
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.core.management.base import CommandError
from django.db.models import Q

from ..._internal import clock
from ..._internal.command_arguments import Options, add_dry_run
from ..._internal.command_output import Output, ProgressLine, format_value
from ...audit.request_context import current_origin
from ...claims.retention import (
    count_claims_of_user,
    destroy_unused_keys,
    scrub_due_claims,
    scrub_past_limit,
    scrub_user,
)
from ...claims.retention_report import (
    RetentionReport,
    StoredClaimSummary,
    create_retention_report,
    get_overdue_condition,
)
from ...crypto import claim_keys
from ...errors import AuditUnavailable, HeldForLegalReasons, KeyMissing
from ...extensions import ClaimKeySummary
from ...subjects.models import PairwiseSubject
from ._arguments import USER_FORMS, get_user

READING_OPTIONS = {"scrub": "report"}


def add_arguments(parser: ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    user_help = f"Erase all claims of this user, also those of live sessions: {USER_FORMS}."
    group.add_argument("--user", metavar="USER", help=user_help)
    report_help = (
        "Erase nothing and report the stored claims; fail if some are overdue by more than an hour."
    )
    group.add_argument("--report", action="store_true", help=report_help)
    add_dry_run(parser)
    parser.set_defaults(handler=handle)


def handle(options: Options, output: Output) -> None:
    """Erase or report. Raises: CommandError if claims or keys could not be erased, or something is
    overdue.
    """
    if options["report"]:
        _print_report(output)
    elif options["user"] is not None:
        _scrub_user(options["user"], output, is_dry_run=options["dry_run"])
    elif options["dry_run"]:
        _preview_due(output)
    else:
        _scrub_due(output)


def _scrub_user(reference: str, output: Output, *, is_dry_run: bool) -> None:
    user = get_user(reference)
    now = clock.now()
    try:
        if is_dry_run:
            _preview_of_user(user, output, now=now)
            return
        count = scrub_user(user, origin=current_origin(), now=now)
    except HeldForLegalReasons as refusal:
        raise CommandError(f"Nothing was erased. {refusal}") from refusal
    _destroy_unused_keys(count, output)


def _preview_of_user(user: Any, output: Output, *, now: datetime) -> None:
    """Raises: HeldForLegalReasons."""
    count = count_claims_of_user(user, now=now)
    text = f"{count} claims would be erased."
    row = {"claims": count, "retention_keys": 0}
    source = claim_keys.find_enabled_source()
    if source is not None:
        subjects = PairwiseSubject.objects.filter(user=user.pk)
        unused = source.count_unused_keys(now=now, due=Q(subject__in=subjects))
        # Those of the person are replaced.
        row["retention_keys"] = unused + subjects.count()
        text += f" {row['retention_keys']} retention keys would be destroyed."
    output.preview(row, text)


def _preview_due(output: Output) -> None:
    now = clock.now()
    report = create_retention_report(now=now)
    keys = 0
    source = claim_keys.find_enabled_source()
    if source is not None:
        keys = source.count_unused_keys(now=now, due=get_overdue_condition(now=now))
    counts = Counter[str]()
    for summary in report.claims:
        counts[summary.name] += summary.overdue
    by_name = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    text = f"{report.overdue} claims would be erased{f': {by_name}' if by_name else ''}."
    if source is not None:
        text += f" {keys} retention keys would be destroyed."
    output.preview({"claims": report.overdue, "retention_keys": keys, "by_name": +counts}, text)


def _scrub_due(output: Output) -> None:
    now = clock.now()
    with ProgressLine(output, "claims erased") as progress:
        if progress.is_shown:
            total = create_retention_report(now=now).overdue
        else:
            total = 0

        due = scrub_due_claims(now=now, report_progress=lambda done: progress(done, total))
        past_limit = scrub_past_limit(
            now=now, report_progress=lambda done: progress(due + done, total)
        )
    _destroy_unused_keys(due + past_limit, output)


def _destroy_unused_keys(erased_count: int, output: Output) -> None:
    text = f"{erased_count} claims were erased."
    row = {"claims": erased_count, "retention_keys": 0}
    fault = ""
    if claim_keys.find_enabled_source() is not None:
        try:
            row["retention_keys"] = len(destroy_unused_keys(now=clock.now()))
            text += f" {row['retention_keys']} retention keys were destroyed."
        except (KeyMissing, AuditUnavailable) as error:
            fault = f"Unused retention keys could not be destroyed: {error}"
    output.confirm(row, text, fault=fault)


def _print_report(output: Output) -> None:
    report = create_retention_report(now=clock.now())
    keys = None
    fault = ""
    source = claim_keys.find_enabled_source()
    try:
        if source is not None:
            keys = source.get_summary()
    except KeyMissing as error:
        fault = str(error)
    row = {**asdict(report), "retention_keys": keys.get_row() if keys else None}
    output.write_row(row, lambda _: "\n".join(_format_report(report, keys)))
    if report.is_late:
        fault = (
            f"{report.overdue} claims are overdue, some for more than "
            f"an hour: does phi_oidc.scrub run? {fault}"
        )
    if fault:
        raise CommandError(fault.strip())


def _format_report(report: RetentionReport, keys: ClaimKeySummary | None) -> list[str]:
    if not report.claims:
        return ["No claims are stored.", *_format_keys(keys)]
    names = ("count", "of_sessions", "held")
    count, live, held = (sum(getattr(summary, name) for summary in report.claims) for name in names)
    total = (
        f"{count} claims are stored: {live} of live sessions, {report.overdue} overdue, {held} "
        "kept by a legal hold."
    )
    return [
        *map(_format_claims, report.claims),
        total,
        f"{report.holds} legal holds are active.",
        *_format_keys(keys),
    ]


def _format_claims(summary: StoredClaimSummary) -> str:
    if summary.until:
        until = f"until {format_value(summary.until)}"
    else:
        until = "until their sessions end"

    text = (
        f"{summary.name} ({summary.purpose}): {summary.count}, since "
        f"{format_value(summary.since)}, {until}"
    )
    if summary.of_sessions:
        text += f"; {summary.of_sessions} of live sessions"
    if summary.overdue_since:
        text += (
            f"; {summary.overdue} overdue, the first since {format_value(summary.overdue_since)}"
        )
    if summary.held:
        text += (
            f"; {summary.held} kept by a legal hold, "
            f"{summary.held_past_their_time} of them past their time"
        )
    return text


def _format_keys(keys: ClaimKeySummary | None) -> Sequence[str]:
    if keys is None:
        return []
    return keys.list_lines()
