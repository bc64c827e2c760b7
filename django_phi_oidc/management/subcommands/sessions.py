"""Lists sessions, ends them, and tries the revocations that are pending."""

import json
import time
import uuid
from argparse import ArgumentParser, ArgumentTypeError
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError, OutputWrapper
from django.db.models import Exists, OuterRef, QuerySet

from ... import conf
from ..._internal import clock
from ...audit.events import Origin
from ...sessions import token_revocation
from ...sessions.lifecycle import end_sessions
from ...sessions.models import EndReason, OIDCSession, PendingRevocation, RevocationStatus
from ...sessions.tasks import CALL_SECONDS

BATCH_SIZE = 500
PENDING_NOTICE = "What is pending waits for the sweep; the audit trail says why."
_MAX_DIGITS = 9


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the subcommands of `sessions`."""
    commands = parser.add_subparsers(dest="sessions_command", required=True)
    listing = commands.add_parser("list", help="list the sessions that live, and what waits to be revoked")
    _add_filter_arguments(listing)
    listing.add_argument("--pending", action="store_true", help="ended ones, too, whose tokens wait to be revoked")
    listing.add_argument("--limit", type=_parse_number, default=1000, help="stop after that many (default: 1000)")
    listing.add_argument("--json", action="store_true", help="an object a line")
    end = commands.add_parser("end", help="end sessions, and revoke their tokens")
    end.add_argument("ids", nargs="*", type=uuid.UUID, metavar="ID", help="of a session, as `list` shows it")
    _add_filter_arguments(end)
    end.add_argument("--all", action="store_true", help="every session that lives; --yes must be said, too")
    end.add_argument("--yes", action="store_true", help="everybody is meant")
    end.add_argument("--seconds", type=float, default=600.0, help="for the provider, in all (default: 600)")
    retry = commands.add_parser("retry", help="try all pending revocations now, whatever their back-off says")
    retry.add_argument("--seconds", type=float, default=600.0, help="stop after that many seconds (default: 600)")


def handle(options: Mapping[str, Any], *, stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    """Run the subcommand. Raises: CommandError when tokens are left that are not revoked, or nobody was named."""
    {"list": _list_sessions, "end": _end_sessions, "retry": _retry_revocations}[options["sessions_command"]](
        options, stdout, stderr
    )


def _add_filter_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--user", metavar="NAME", help="of the account with this user name alone")
    parser.add_argument("--provider", metavar="NAME", help="of this provider alone")


def _filter_sessions(options: Mapping[str, Any], sessions: QuerySet[OIDCSession]) -> QuerySet[OIDCSession]:
    """Raises: CommandError for a user or provider that is none: a typing error must not end nothing, quietly."""
    if options["user"] is not None:
        users = get_user_model()._default_manager.filter(**{get_user_model().USERNAME_FIELD: options["user"]})
        if not users:
            raise CommandError(f"There is no user {options['user']}.")
        sessions = sessions.filter(user__in=users)
    if options["provider"] is not None:
        sessions = sessions.filter(provider=options["provider"])
        # One that is declared no longer may have some left.
        if options["provider"] not in conf.providers() and not sessions.exists():
            raise CommandError(f"There is no provider {options['provider']}.")
    return sessions


def _parse_number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_DIGITS:
        raise ArgumentTypeError("a whole number is expected")
    return int(text)


def _list_sessions(options: Mapping[str, Any], stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    waiting = PendingRevocation.objects.filter(session__isnull=False, status=RevocationStatus.PENDING)
    rows = OIDCSession.objects.annotate(pending=Exists(waiting.filter(session=OuterRef("pk"))))
    # Not by `pending`: SQLite would look through the revocations for every session there ever was.
    rows = rows.filter(pk__in=waiting.values("session")) if options["pending"] else rows.filter(ended_at=None)
    fields = ("pk", "provider", "started_at", "last_seen_at", "ended_at", "end_reason", "pending")
    named = f"user__{get_user_model().USERNAME_FIELD}"
    found = _filter_sessions(options, rows).order_by("started_at", "pk").values_list(*fields, named)
    limit = options["limit"]
    for number, (*values, user) in enumerate(found[: limit + 1].iterator()):
        if number == limit:
            stderr.write(f"There are more than these {limit}.")
            break
        row = dict(zip(("id", *fields[1:]), values, strict=True)) | {"user": user or ""}
        if options["json"]:
            stdout.write(json.dumps(row, default=_format_value))
        else:
            ended = f"ended {_format_value(row['ended_at'])} ({row['end_reason']})" if row["ended_at"] else "lives"
            tokens = ", tokens wait to be revoked" if row["pending"] else ""
            times = f"started {_format_value(row['started_at'])}, last seen {_format_value(row['last_seen_at'])}"
            # A name may be the provider's word; no terminal is to obey it.
            name = user if user and user.isprintable() else ascii(user) if user else "(nobody)"
            stdout.write(f"{row['id']}  {name}  {row['provider']}  {times}, {ended}{tokens}")


def _format_value(value: Any) -> str:
    return str(value.isoformat(timespec="seconds") if hasattr(value, "isoformat") else value)


def _end_sessions(options: Mapping[str, Any], stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    live = OIDCSession.objects.filter(ended_at=None)
    if options["ids"]:
        live = live.filter(pk__in=options["ids"])
    elif not (options["all"] or options["user"] or options["provider"]):
        raise CommandError("Name sessions, --user, --provider, or --all.")
    if options["all"] and not options["yes"]:
        raise CommandError("--all signs out everybody whom the other options leave: say --yes, too.")
    started, ended, pending = time.monotonic(), 0, []
    for part in _iter_live_batches(_filter_sessions(options, live)):
        done = end_sessions(part, EndReason.ADMINISTRATOR, origin=Origin(), now=clock.now())
        ended += len(done)
        pending += [pk for each in done for pk in each.revocation_ids]
        _show_progress(stderr, f"{ended:,} sessions ended")
    # All have ended before the first provider is asked: it may be away.
    _revoke_tokens(pending, budget_seconds=options["seconds"] - (time.monotonic() - started), stderr=stderr)
    statuses = _count_statuses(pending)
    revoked = statuses.pop(RevocationStatus.DONE, 0)
    told = f"{ended} sessions ended, {revoked} of {len(pending)} tokens revoked."
    if statuses:
        raise CommandError(f"{told} The others: {_format_status_counts(statuses)}. {PENDING_NOTICE}")
    if options["ids"] and ended < len(set(options["ids"])):
        raise CommandError(f"{told} The others of these sessions do not live.")
    stdout.write(told)


def _iter_live_batches(live_sessions: QuerySet[OIDCSession]) -> Iterator[Sequence[uuid.UUID]]:
    """Yield the ids of sessions that live, some at a time; each part is ended before the next one is asked for."""
    while part := list(live_sessions.order_by("pk").values_list("pk", flat=True)[:BATCH_SIZE]):
        yield part


def _revoke_tokens(revocation_ids: Sequence[uuid.UUID], *, budget_seconds: float, stderr: OutputWrapper) -> None:
    """Try these for so many seconds. Another may be at some of them: the table tells what became of them."""
    ends_at = time.monotonic() + budget_seconds
    for number, pk in enumerate(revocation_ids):
        if time.monotonic() >= ends_at:
            break
        token_revocation.attempt_revocation(
            pk, now=clock.now(), timeout_seconds=CALL_SECONDS, give_up_after=conf.revocation_give_up_after()
        )
        _show_progress(stderr, f"{number + 1:,} of {len(revocation_ids):,} tokens tried")
    _show_progress(stderr, "")


def _retry_revocations(options: Mapping[str, Any], stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    waiting = token_revocation.reset_backoff(now=clock.now())
    token_revocation.retry_due(
        clock=clock.now,
        budget_seconds=options["seconds"],
        timeout_seconds=CALL_SECONDS,
        give_up_after=conf.revocation_give_up_after(),
    )
    statuses = _count_statuses(waiting)
    told = f"{len(waiting)} revocations were waiting: {_format_status_counts(statuses) or 'nothing to do'}."
    if len(waiting) > statuses[RevocationStatus.DONE]:
        raise CommandError(f"{told} {PENDING_NOTICE}")
    stdout.write(told)


def _count_statuses(revocation_ids: Sequence[uuid.UUID]) -> Counter[str]:
    """Return how many of the revocations stand where by now."""
    statuses: Counter[str] = Counter()
    for start in range(0, len(revocation_ids), BATCH_SIZE):
        part = PendingRevocation.objects.filter(pk__in=revocation_ids[start : start + BATCH_SIZE])
        statuses.update(part.values_list("status", flat=True))
    return statuses


def _format_status_counts(status_counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(status_counts.items()))


def _show_progress(stderr: OutputWrapper, text: str) -> None:
    """Write over the line that shows how far this is, where somebody sees it."""
    if stderr.isatty():
        stderr.write(f"\r\x1b[K{text}", ending="")
        stderr.flush()
