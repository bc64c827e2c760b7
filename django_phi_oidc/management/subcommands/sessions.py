"""Lists and ends sessions, and retries pending revocations."""

import time
import uuid
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError
from django.db.models import Exists, OuterRef, QuerySet

from ... import conf
from ..._internal import clock
from ...audit.request_context import current_origin
from ...sessions import token_revocation
from ...sessions.lifecycle import end_sessions
from ...sessions.models import EndReason, OIDCSession, PendingRevocation, RevocationStatus
from ...sessions.tasks import CALL_SECONDS
from ._arguments import Options, add_command, parse_number
from ._output import Output, ProgressLine, format_untrusted, format_value

BATCH_SIZE = 500
PENDING_NOTICE = "The sweep retries pending revocations; see the audit log for the reasons."


def add_arguments(parser: ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="sessions_command", required=True)
    listing = add_command(commands, "list", _list, "list the live sessions and whether revocations are pending")
    listing.add_argument("--pending", action="store_true", help="all sessions with pending revocations, even ended")
    listing.add_argument("--limit", type=parse_number, default=1000, help="list at most this many (default: 1000)")
    listing.add_argument("--json", action="store_true", help="one object per line")
    end = add_command(commands, "end", _end, "end sessions and revoke their tokens")
    end.add_argument("ids", nargs="*", type=uuid.UUID, metavar="ID", help="of a session, as shown by `list`")
    end.add_argument("--all", action="store_true", help="all live sessions; requires --yes")
    end.add_argument("--yes", action="store_true", help="confirm --all")
    end.add_argument("--seconds", type=float, default=600.0, help="time for revocations in total (default: 600)")
    for command in (listing, end):
        command.add_argument("--user", metavar="NAME", help="only sessions of the account with this user name")
        command.add_argument("--provider", metavar="NAME", help="only sessions of this provider")
    retry = add_command(commands, "retry", _retry, "retry all pending revocations now, regardless of their back-off")
    retry.add_argument("--seconds", type=float, default=600.0, help="stop after this many seconds (default: 600)")


def _filter_sessions(options: Options, sessions: QuerySet[OIDCSession]) -> QuerySet[OIDCSession]:
    """Raises: CommandError for an unknown user or provider, so that a typing error does not silently end nothing."""
    if options["user"] is not None:
        users = get_user_model()._default_manager.filter(**{get_user_model().USERNAME_FIELD: options["user"]})
        if not users:
            raise CommandError(f"There is no user {options['user']}.")
        sessions = sessions.filter(user__in=users)
    if options["provider"] is not None:
        sessions = sessions.filter(provider=options["provider"])
        # A provider that is no longer declared may still have sessions.
        if options["provider"] not in conf.providers() and not sessions.exists():
            raise CommandError(f"There is no provider {options['provider']}.")
    return sessions


def _list(options: Options, output: Output) -> None:
    revocations = PendingRevocation.objects.filter(session__isnull=False, status=RevocationStatus.PENDING)
    sessions = OIDCSession.objects.annotate(pending=Exists(revocations.filter(session=OuterRef("pk"))))
    if options["pending"]:
        # Not filtered by `pending`: SQLite would search the revocations for every session ever stored.
        sessions = sessions.filter(pk__in=revocations.values("session"))
    else:
        sessions = sessions.filter(ended_at=None)
    fields = ("pk", "provider", "started_at", "last_seen_at", "ended_at", "end_reason", "pending")
    username = f"user__{get_user_model().USERNAME_FIELD}"
    rows = _filter_sessions(options, sessions).order_by("started_at", "pk").values_list(*fields, username)
    limit = options["limit"]
    for number, (*values, user) in enumerate(rows[: limit + 1].iterator()):
        if number == limit:
            output.stderr.write(f"There are more than {limit} sessions.")
            break
        output.write_row(dict(zip(("id", *fields[1:]), values, strict=True)) | {"user": user or ""}, _format_session)


def _format_session(session: Mapping[str, Any]) -> str:
    ended_at = session["ended_at"]
    state = f"ended {format_value(ended_at)} ({session['end_reason']})" if ended_at else "live"
    tokens = ", revocations pending" if session["pending"] else ""
    times = f"started {format_value(session['started_at'])}, last seen {format_value(session['last_seen_at'])}"
    user = format_untrusted(session["user"]) or "(no user)"
    return f"{session['id']}  {user}  {session['provider']}  {times}, {state}{tokens}"


def _end(options: Options, output: Output) -> None:
    live = OIDCSession.objects.filter(ended_at=None)
    if options["ids"]:
        live = live.filter(pk__in=options["ids"])
    elif not (options["all"] or options["user"] or options["provider"]):
        raise CommandError("Name sessions, --user, --provider, or --all.")
    if options["all"] and not options["yes"]:
        raise CommandError("--all ends every session that the other options select. Add --yes to confirm.")
    started, ended = time.monotonic(), 0
    revocation_ids: list[uuid.UUID] = []
    progress = ProgressLine(output, "sessions ended")
    # The sessions of one batch have ended before the next one is read.
    session_ids = _filter_sessions(options, live).order_by("pk").values_list("pk", flat=True)
    while batch := list(session_ids[:BATCH_SIZE]):
        ended_sessions = end_sessions(batch, EndReason.ADMINISTRATOR, origin=current_origin(), now=clock.now())
        ended += len(ended_sessions)
        revocation_ids += [pk for session in ended_sessions for pk in session.revocation_ids]
        progress(ended)
    progress.end()
    # All sessions are ended before the first request to a provider, which may be unreachable.
    _revoke_tokens(revocation_ids, ends_at=started + options["seconds"], output=output)
    statuses = _count_statuses(revocation_ids)
    revoked = statuses.pop(RevocationStatus.DONE, 0)
    text = f"{ended} sessions ended, {revoked} of {len(revocation_ids)} tokens revoked."
    if statuses:
        raise CommandError(f"{text} The others: {_format_statuses(statuses)}. {PENDING_NOTICE}")
    if options["ids"] and ended < len(set(options["ids"])):
        raise CommandError(f"{text} The other sessions are not live.")
    output.write(text)


def _revoke_tokens(revocation_ids: Sequence[uuid.UUID], *, ends_at: float, output: Output) -> None:
    """Attempt these revocations until ends_at. The sweep may attempt some of them too; their rows hold the result."""
    ids_by_provider: dict[str, list[uuid.UUID]] = {}
    for start in range(0, len(revocation_ids), BATCH_SIZE):
        batch = PendingRevocation.objects.filter(pk__in=revocation_ids[start : start + BATCH_SIZE])
        for provider, pk in batch.order_by("-token_type_hint", "pk").values_list("provider", "pk"):
            ids_by_provider.setdefault(provider, []).append(pk)
    statuses = token_revocation.attempt_by_provider(
        {provider: iter(pks) for provider, pks in ids_by_provider.items()},
        clock=clock.now,
        budget_seconds=ends_at - time.monotonic(),
        timeout_seconds=CALL_SECONDS,
        give_up_after=conf.revocation_give_up_after(),
    )
    progress = ProgressLine(output, "tokens tried")
    for number, _ in enumerate(statuses, start=1):
        progress(number, len(revocation_ids))
    progress.end()


def _retry(options: Options, output: Output) -> None:
    revocation_ids = token_revocation.reset_backoff(now=clock.now())
    limits: Any = {"timeout_seconds": CALL_SECONDS, "give_up_after": conf.revocation_give_up_after()}
    token_revocation.retry_due(clock=clock.now, budget_seconds=options["seconds"], **limits)
    statuses = _count_statuses(revocation_ids)
    text = f"{len(revocation_ids)} revocations were pending: {_format_statuses(statuses) or 'nothing to do'}."
    if len(revocation_ids) > statuses[RevocationStatus.DONE]:
        raise CommandError(f"{text} {PENDING_NOTICE}")
    output.write(text)


def _count_statuses(revocation_ids: Sequence[uuid.UUID]) -> Counter[str]:
    statuses: Counter[str] = Counter()
    for start in range(0, len(revocation_ids), BATCH_SIZE):
        batch = PendingRevocation.objects.filter(pk__in=revocation_ids[start : start + BATCH_SIZE])
        statuses.update(batch.values_list("status", flat=True))
    return statuses


def _format_statuses(status_counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(status_counts.items()))
