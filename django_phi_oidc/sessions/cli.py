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

from .. import clock, conf
from ..audit.events import Origin
from . import revoking
from .ending import end_sessions
from .models import EndReason, OIDCSession, PendingRevocation, RevocationStatus
from .tasks import CALL_SECONDS

BATCH = 500
WHY = "What is pending waits for the sweep; the audit trail says why."
_MOST_DIGITS = 9


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the subcommands of `sessions`."""
    commands = parser.add_subparsers(dest="sessions_command", required=True)
    listing = commands.add_parser("list", help="list the sessions that live, and what waits to be revoked")
    _add_filters(listing)
    listing.add_argument("--pending", action="store_true", help="ended ones, too, whose tokens wait to be revoked")
    listing.add_argument("--limit", type=_number, default=1000, help="stop after that many (default: 1000)")
    listing.add_argument("--json", action="store_true", help="an object a line")
    end = commands.add_parser("end", help="end sessions, and revoke their tokens")
    end.add_argument("ids", nargs="*", type=uuid.UUID, metavar="ID", help="of a session, as `list` shows it")
    _add_filters(end)
    end.add_argument("--all", action="store_true", help="every session that lives; --yes must be said, too")
    end.add_argument("--yes", action="store_true", help="everybody is meant")
    end.add_argument("--seconds", type=float, default=600.0, help="for the provider, in all (default: 600)")
    retry = commands.add_parser("retry", help="try all pending revocations now, whatever their back-off says")
    retry.add_argument("--seconds", type=float, default=600.0, help="stop after that many seconds (default: 600)")


def handle(options: Mapping[str, Any], *, stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    """Run the subcommand. Raises: CommandError when tokens are left that are not revoked, or nobody was named."""
    {"list": _list, "end": _end, "retry": _retry}[options["sessions_command"]](options, stdout, stderr)


def _add_filters(parser: ArgumentParser) -> None:
    parser.add_argument("--user", metavar="NAME", help="of the account with this user name alone")
    parser.add_argument("--provider", metavar="NAME", help="of this provider alone")


def _chosen(options: Mapping[str, Any], sessions: QuerySet[OIDCSession]) -> QuerySet[OIDCSession]:
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


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > _MOST_DIGITS:
        raise ArgumentTypeError("a whole number is expected")
    return int(text)


def _list(options: Mapping[str, Any], stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    waiting = PendingRevocation.objects.filter(session__isnull=False, status=RevocationStatus.PENDING)
    rows = OIDCSession.objects.annotate(pending=Exists(waiting.filter(session=OuterRef("pk"))))
    # Not by `pending`: SQLite would look through the revocations for every session there ever was.
    rows = rows.filter(pk__in=waiting.values("session")) if options["pending"] else rows.filter(ended_at=None)
    fields = ("pk", "provider", "started_at", "last_seen_at", "ended_at", "end_reason", "pending")
    named = f"user__{get_user_model().USERNAME_FIELD}"
    found = _chosen(options, rows).order_by("started_at", "pk").values_list(*fields, named)
    limit = options["limit"]
    for number, (*values, user) in enumerate(found[: limit + 1].iterator()):
        if number == limit:
            stderr.write(f"There are more than these {limit}.")
            break
        row = dict(zip(("id", *fields[1:]), values, strict=True)) | {"user": user or ""}
        if options["json"]:
            stdout.write(json.dumps(row, default=_plain))
        else:
            ended = f"ended {_plain(row['ended_at'])} ({row['end_reason']})" if row["ended_at"] else "lives"
            tokens = ", tokens wait to be revoked" if row["pending"] else ""
            times = f"started {_plain(row['started_at'])}, last seen {_plain(row['last_seen_at'])}"
            # A name may be the provider's word; no terminal is to obey it.
            name = user if user and user.isprintable() else ascii(user) if user else "(nobody)"
            stdout.write(f"{row['id']}  {name}  {row['provider']}  {times}, {ended}{tokens}")


def _plain(value: Any) -> str:
    return str(value.isoformat(timespec="seconds") if hasattr(value, "isoformat") else value)


def _end(options: Mapping[str, Any], stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    live = OIDCSession.objects.filter(ended_at=None)
    if options["ids"]:
        live = live.filter(pk__in=options["ids"])
    elif not (options["all"] or options["user"] or options["provider"]):
        raise CommandError("Name sessions, --user, --provider, or --all.")
    if options["all"] and not options["yes"]:
        raise CommandError("--all signs out everybody whom the other options leave: say --yes, too.")
    started, ended, pending = time.monotonic(), 0, []
    for part in _parts(_chosen(options, live)):
        done = end_sessions(part, EndReason.ADMINISTRATOR, origin=Origin(), now=clock.now())
        ended += len(done)
        pending += [pk for each in done for pk in each.revocations]
        _show(stderr, f"{ended:,} sessions ended")
    # All have ended before the first provider is asked: it may be away.
    _revoke(pending, seconds=options["seconds"] - (time.monotonic() - started), stderr=stderr)
    statuses = _statuses(pending)
    revoked = statuses.pop(RevocationStatus.DONE, 0)
    told = f"{ended} sessions ended, {revoked} of {len(pending)} tokens revoked."
    if statuses:
        raise CommandError(f"{told} The others: {_told(statuses)}. {WHY}")
    if options["ids"] and ended < len(set(options["ids"])):
        raise CommandError(f"{told} The others of these sessions do not live.")
    stdout.write(told)


def _parts(live: QuerySet[OIDCSession]) -> Iterator[Sequence[uuid.UUID]]:
    """Yield the ids of sessions that live, some at a time; each part is ended before the next one is asked for."""
    while part := list(live.order_by("pk").values_list("pk", flat=True)[:BATCH]):
        yield part


def _revoke(pks: Sequence[uuid.UUID], *, seconds: float, stderr: OutputWrapper) -> None:
    """Try these for so many seconds. Another may be at some of them: the table tells what became of them."""
    ends_at = time.monotonic() + seconds
    for number, pk in enumerate(pks):
        if time.monotonic() >= ends_at:
            break
        revoking.attempt(pk, now=clock.now(), deadline=CALL_SECONDS, give_up_after=conf.revocation_give_up_after())
        _show(stderr, f"{number + 1:,} of {len(pks):,} tokens tried")
    _show(stderr, "")


def _retry(options: Mapping[str, Any], stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    waiting = revoking.make_due(now=clock.now())
    revoking.sweep(
        clock=clock.now,
        seconds=options["seconds"],
        deadline=CALL_SECONDS,
        give_up_after=conf.revocation_give_up_after(),
    )
    statuses = _statuses(waiting)
    told = f"{len(waiting)} revocations were waiting: {_told(statuses) or 'nothing to do'}."
    if len(waiting) > statuses[RevocationStatus.DONE]:
        raise CommandError(f"{told} {WHY}")
    stdout.write(told)


def _statuses(pks: Sequence[uuid.UUID]) -> Counter[str]:
    """Return how many of the revocations stand where by now."""
    statuses: Counter[str] = Counter()
    for start in range(0, len(pks), BATCH):
        part = PendingRevocation.objects.filter(pk__in=pks[start : start + BATCH])
        statuses.update(part.values_list("status", flat=True))
    return statuses


def _told(statuses: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))


def _show(stderr: OutputWrapper, text: str) -> None:
    """Write over the line that shows how far this is, where somebody sees it."""
    if stderr.isatty():
        stderr.write(f"\r\x1b[K{text}", ending="")
        stderr.flush()
