"""List and end sessions, and retry pending revocations."""

import time
import uuid
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db.models import Exists, OuterRef, QuerySet

from ... import conf
from ..._internal import clock
from ..._internal.app_configs import add_nested_subcommands
from ..._internal.command_arguments import (
    Options,
    add_command,
    add_dry_run,
    build_argument_error,
    parse_number,
    parse_time,
)
from ..._internal.command_output import Output, ProgressLine, format_untrusted, format_value
from ...audit.request_context import current_origin
from ...sessions import token_revocation
from ...sessions.lifecycle import end_sessions
from ...sessions.models import (
    TOKEN_HINTS,
    EndReason,
    OIDCSession,
    PendingRevocation,
    RevocationStatus,
)
from ...sessions.session_selection import SessionSelection
from ...sessions.tasks import CALL_SECONDS
from ._arguments import USER_FORMS, format_user, get_provider, get_user

READING_COMMANDS = ("sessions list",)

BATCH_SIZE = 500
REVOCATION_BATCH_SIZE = 5000
MAX_LISTED = 1000
PENDING_NOTICE = "The sweep retries pending revocations; see the audit log for the reasons."
EndedSessions = tuple[int, list[uuid.UUID]]
"""Their number, and the revocations to try."""


def add_arguments(parser: ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="sessions_command", required=True, metavar="SUBCOMMAND")
    listing = add_command(
        commands, "list", _list, "List the live sessions and whether revocations are pending."
    )
    pending_help = "List all sessions with pending revocations, even ended ones."
    listing.add_argument("--pending", action="store_true", help=pending_help)
    limit_help = f"List at most this many (default: {MAX_LISTED})."
    listing.add_argument("--limit", type=parse_number, default=MAX_LISTED, help=limit_help)
    end = add_command(commands, "end", _end, "End sessions and revoke their tokens.")
    end.add_argument(
        "ids",
        nargs="*",
        type=uuid.UUID,
        metavar="ID",
        help="The id of a session, as `list` shows it.",
    )
    end.add_argument("--all", action="store_true", help="End all live sessions; requires --yes.")
    end.add_argument("--yes", action="store_true", help="Confirm --all.")
    end.add_argument(
        "--seconds", type=float, default=600.0, help="Time for all revocations (default: 600)."
    )
    add_dry_run(end)
    for command in (listing, end):
        command.add_argument(
            "--user", metavar="USER", help=f"Only sessions of this user: {USER_FORMS}."
        )
        command.add_argument("--provider", metavar="NAME", help="Only sessions of this provider.")
        command.add_argument(
            "--group", metavar="NAME", help="Only sessions of members of this group."
        )
        before_help = "Only sessions that started before this date or time (UTC without an offset)."
        command.add_argument("--before", type=parse_time, metavar="TIME", help=before_help)
    retry = add_command(
        commands,
        "retry",
        _retry,
        "Retry all pending revocations now, regardless of their back-off.",
    )
    retry.add_argument(
        "--seconds", type=float, default=600.0, help="Stop after this many seconds (default: 600)."
    )
    add_dry_run(retry)
    add_nested_subcommands("sessions", commands)


def _filter_sessions(options: Options, sessions: QuerySet[OIDCSession]) -> QuerySet[OIDCSession]:
    """Raises: CommandError for an unknown name, so that a typing error does not silently end
    nothing.
    """
    group = None
    if options["group"] is not None:
        group = _get_group(options["group"]).pk

    if options["user"] is not None:
        user = str(get_user(options["user"]).pk)
    else:
        user = ""

    if options["before"] is not None:
        before = options["before"].isoformat()
    else:
        before = ""

    selection = SessionSelection(
        provider=options["provider"] or "",
        group=group,
        user=user,
        before=before,
    )
    sessions = selection.filter(sessions)
    # A provider that is no longer declared may still have sessions.
    if selection.provider and selection.provider not in conf.providers() and not sessions.exists():
        get_provider(selection.provider)
    return sessions


def _get_group(name: str) -> Group:
    try:
        return Group.objects.get(name=name)
    except Group.DoesNotExist as error:
        raise build_argument_error(f"There is no group {format_untrusted(name)}.") from error


def _list(options: Options, output: Output) -> None:
    sessions = _annotate_pending(OIDCSession.objects.all())
    if options["pending"]:
        # Not filtered by `pending`: SQLite would search the revocations for every session ever
        # stored.
        sessions = sessions.filter(pk__in=_pending_revocations().values("session"))
    else:
        sessions = sessions.filter(ended_at=None)
    _write_sessions(_filter_sessions(options, sessions), output, limit=options["limit"])


def _pending_revocations() -> QuerySet[PendingRevocation]:
    return PendingRevocation.objects.filter(session__isnull=False, status=RevocationStatus.PENDING)


def _annotate_pending(sessions: QuerySet[OIDCSession]) -> QuerySet[OIDCSession]:
    return sessions.annotate(pending=Exists(_pending_revocations().filter(session=OuterRef("pk"))))


def _write_sessions(sessions: QuerySet[OIDCSession], output: Output, *, limit: int) -> None:
    fields = ("pk", "provider", "started_at", "last_seen_at", "ended_at", "end_reason", "pending")
    user_fields = ("user", f"user__{get_user_model().USERNAME_FIELD}")
    rows = sessions.order_by("started_at", "pk").values_list(*fields, *user_fields)
    for number, (*values, user_pk, name) in enumerate(rows[: limit + 1].iterator()):
        if number == limit:
            output.warn(f"There are more than {limit} sessions.")
            break

        if user_pk is None:
            user = ""
        else:
            user = format_user(name, user_pk)

        output.write_row(
            dict(zip(("id", *fields[1:]), values, strict=True)) | {"user": user}, _format_session
        )


def _format_session(session: Mapping[str, Any]) -> str:
    ended = session["ended_at"]
    if ended:
        state = f"ended {format_value(ended)} ({session['end_reason']})"
    else:
        state = "live"

    if session["pending"]:
        tokens = ", revocations pending"
    else:
        tokens = ""

    times = (
        f"started {format_value(session['started_at'])}, last seen "
        f"{format_value(session['last_seen_at'])}"
    )
    user = format_untrusted(session["user"]) or "(no user)"
    return f"{session['id']}  {user}  {session['provider']}  {times}, {state}{tokens}"


def _end(options: Options, output: Output) -> None:
    started = time.monotonic()
    ended = _end_selected(options, output)
    if ended is not None:
        revoke_and_confirm(ended, options, output, started=started)


def revoke_and_confirm(
    ended: EndedSessions, options: Options, output: Output, *, started: float
) -> None:
    """Revoke the tokens of the ended sessions, and print the result. started: by the monotonic
    clock.
    """
    count, revocation_ids = ended
    # All sessions are ended before the first request to a provider, which may be unreachable.
    _revoke_tokens(revocation_ids, ends_at=started + options["seconds"], output=output)
    statuses = _count_statuses(revocation_ids)
    revoked = statuses.pop(RevocationStatus.DONE, 0)
    text = f"{count} sessions ended, {revoked} of {len(revocation_ids)} tokens revoked."
    row = {"sessions": count, "tokens": len(revocation_ids), "revoked": revoked, "others": statuses}
    fault = ""
    if statuses:
        fault = f"The others: {_format_statuses(statuses)}. {PENDING_NOTICE}"
    elif options["ids"] and count < len(set(options["ids"])):
        fault = "The other sessions are not live."
    output.confirm(row, text, fault=fault)


def _end_selected(options: Options, output: Output) -> EndedSessions | None:
    """End the selected OIDC sessions. None: it was a dry run. Raises: CommandError."""
    live: QuerySet[OIDCSession] = OIDCSession.objects.filter(ended_at=None)
    if options["ids"]:
        live = live.filter(pk__in=options["ids"])
    elif not any(options[name] for name in ("all", "user", "provider", "group", "before")):
        raise build_argument_error(
            "Name sessions, --user, --provider, --group, --before, or --all."
        )
    live = _filter_sessions(options, live)
    if options["dry_run"]:
        _preview_end(live, output)
        return None
    if options["all"] and not options["yes"]:
        raise build_argument_error(
            "--all ends every session that the other options select. Add --yes to confirm."
        )
    ended = 0
    revocation_ids = list[uuid.UUID]()
    with ProgressLine(output, "sessions ended") as progress:
        if progress.is_shown:
            total = live.count()
        else:
            total = 0

        session_ids = live.order_by("pk").values_list("pk", flat=True)
        batch = list(session_ids[:BATCH_SIZE])
        while batch:
            ended_sessions = end_sessions(
                batch, EndReason.ADMINISTRATOR, origin=current_origin(), now=clock.now()
            )
            ended += len(ended_sessions)
            for session in ended_sessions:
                for pk in session.revocation_ids:
                    revocation_ids.append(pk)
            progress(ended, total)
            # Not from the start, where ended sessions are. At the end once more, for ids of servers
            # with a slow clock.
            batch = list(session_ids.filter(pk__gt=batch[-1])[:BATCH_SIZE]) or list(
                session_ids[:BATCH_SIZE]
            )
    return ended, revocation_ids


def _preview_end(sessions: QuerySet[OIDCSession], output: Output) -> None:
    count = sessions.count()
    _write_sessions(_annotate_pending(sessions), output, limit=count)
    tokens = sum(sessions.filter(**{f"{hint}__isnull": False}).count() for hint in TOKEN_HINTS)
    text = f"{count} sessions would be ended, {tokens} tokens would be revoked."
    output.preview({"sessions": count, "tokens": tokens}, text)


def _revoke_tokens(revocation_ids: Sequence[uuid.UUID], *, ends_at: float, output: Output) -> None:
    """Attempt these revocations until ends_at. The sweep may attempt some of them too; their rows
    hold the result.
    """
    with ProgressLine(output, "tokens tried") as progress:
        for start in range(0, len(revocation_ids), REVOCATION_BATCH_SIZE):

            def report(tried: int, start: int = start) -> None:
                progress(start + tried, len(revocation_ids))

            token_revocation.retry_due(
                rows=PendingRevocation.objects.filter(
                    pk__in=revocation_ids[start : start + REVOCATION_BATCH_SIZE]
                ),
                clock=clock.now,
                budget_seconds=max(ends_at - time.monotonic(), 0),
                timeout_seconds=CALL_SECONDS,
                give_up_after=conf.revocation_give_up_after(),
                report_progress=report,
            )


def _retry(options: Options, output: Output) -> None:
    if options["dry_run"]:
        count = PendingRevocation.objects.filter(
            status=RevocationStatus.PENDING, created_at__lte=clock.now()
        ).count()
        output.preview({"tokens": count}, f"{count} revocations would be retried.")
        return
    revocation_ids = token_revocation.reset_backoff(now=clock.now())
    give_up_after = conf.revocation_give_up_after()
    token_revocation.retry_due(
        clock=clock.now,
        budget_seconds=options["seconds"],
        timeout_seconds=CALL_SECONDS,
        give_up_after=give_up_after,
    )
    statuses = _count_statuses(revocation_ids)
    text = (
        f"{len(revocation_ids)} revocations were pending: "
        f"{_format_statuses(statuses) or 'nothing to do'}."
    )

    if len(revocation_ids) > statuses[RevocationStatus.DONE]:
        fault = PENDING_NOTICE
    else:
        fault = ""

    output.confirm({"tokens": len(revocation_ids), "statuses": statuses}, text, fault=fault)


def _count_statuses(revocation_ids: Sequence[uuid.UUID]) -> Counter[str]:
    statuses: Counter[str] = Counter()
    for start in range(0, len(revocation_ids), BATCH_SIZE):
        batch = PendingRevocation.objects.filter(pk__in=revocation_ids[start : start + BATCH_SIZE])
        statuses.update(batch.values_list("status", flat=True))
    return statuses


def _format_statuses(status_counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(status_counts.items()))
