"""List and end sessions that another authentication backend has begun (`phi_oidc sessions …
--foreign`).
"""

import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError

from ...._internal import clock
from ...._internal.batches import split_into_batches
from ...._internal.command_arguments import Handler, Options, build_argument_error
from ...._internal.command_output import Output, ProgressLine, format_untrusted, format_value
from ....audit.request_context import current_origin
from ....management.subcommands._arguments import describe_user, get_provider, get_user
from ....management.subcommands.sessions import EndedSessions, revoke_and_confirm
from ..foreign_sessions import (
    BATCH_SIZE,
    ForeignSession,
    end_foreign_sessions,
    has_session_table,
    iterate_foreign_sessions,
)

LIVE = "live"
ANONYMOUS = "anonymous"
EXPIRED = "expired"
SESSIONS = "sessions"
TOKENS = "tokens"
REVOCABLE_TOKENS = "revocable tokens"
_HELP = "Instead, sessions that another authentication backend has begun."
_END_HELP = (
    f"{_HELP} With it, --provider says where to revoke their tokens, and --yes confirms that some "
    "cannot be revoked."
)


def add_subcommands(commands: Any) -> None:
    """Add `--foreign` to `sessions list` and `sessions end`."""
    _add_option(commands.choices["list"], _list_foreign, _HELP)
    _add_option(commands.choices["end"], _end_foreign, _END_HELP)


def _add_option(command: Any, handler: Handler, help_text: str) -> None:
    command.add_argument("--foreign", action="store_true", help=help_text)
    command.set_defaults(handler=partial(_handle, handler, command.get_default("handler")))


def _handle(
    handle_foreign: Handler, handle_others: Handler, options: Options, output: Output
) -> None:
    if options["foreign"]:
        handle_foreign(options, output)
    else:
        handle_others(options, output)


def _list_foreign(options: Options, output: Output) -> None:
    """List the sessions, at most `--limit`, and count all of them. Raises: CommandError."""
    if any(options[name] for name in ("pending", "provider", "group", "before")):
        raise build_argument_error("--foreign permits only --user and --limit.")
    counts = _write_sessions(_iterate_sessions(options), output, limit=options["limit"])
    output.note(_format_counts(counts))


def _end_foreign(options: Options, output: Output) -> None:
    """End the sessions, and revoke their tokens. Raises: CommandError."""
    started = time.monotonic()
    ended = _end_sessions(options, output)
    if ended is not None:
        revoke_and_confirm(ended, options, output, started=started)


def _end_sessions(options: Options, output: Output) -> EndedSessions | None:
    """End the sessions. None: it was a dry run. Raises: CommandError."""
    if any(options[name] for name in ("ids", "all", "group", "before")):
        raise build_argument_error(
            "--foreign permits only --user, --provider, --yes, --seconds and --dry-run."
        )

    if options["provider"]:
        provider = get_provider(options["provider"]).name
    else:
        provider = ""

    if options["dry_run"]:
        counts = _write_sessions(_iterate_sessions(options), output, provider=provider)
        row = {"sessions": counts[SESSIONS], "tokens": counts[REVOCABLE_TOKENS]}
        output.preview(
            row,
            "{sessions} sessions would be ended, {tokens} tokens would be revoked.".format_map(row),
        )
        return None
    if not options["yes"]:
        _require_revocable(_iterate_sessions(options), provider)
    ended = 0
    revocation_ids = list[uuid.UUID]()
    with ProgressLine(output, "sessions ended") as progress:
        for batch in split_into_batches(_iterate_sessions(options), BATCH_SIZE):
            count, queued = end_foreign_sessions(
                batch, provider=provider, origin=current_origin(), now=clock.now()
            )
            ended += count
            revocation_ids += queued
            progress(ended)
    return ended, revocation_ids


def _require_revocable(sessions: Iterable[ForeignSession], provider: str) -> None:
    """Raises: CommandError if tokens would only be deleted."""
    count = sum(
        bool(session.tokens) and not session.list_revocable(provider) for session in sessions
    )
    if count and provider:
        raise CommandError(
            f"Nothing was ended. {count} sessions store tokens of another issuer than that of "
            f"{provider}, as their ID Tokens show. Add --yes to only delete these: they then stay "
            "valid until they expire."
        )
    if count:
        raise CommandError(
            f"Nothing was ended. {count} sessions store tokens, and it is unknown which provider "
            "issued them. Add --provider to revoke them there, or --yes to only delete them: they "
            "then stay valid until they expire."
        )


def _write_sessions(
    sessions: Iterable[ForeignSession],
    output: Output,
    *,
    provider: str = "",
    limit: int | None = None,
) -> Counter[str]:
    """Print the sessions, at most limit, and count all of them by their state, and their tokens."""
    counts: Counter[str] = Counter()
    for batch in split_into_batches(sessions, BATCH_SIZE):
        users = _find_users(batch)
        for session in batch:
            row = _build_row(session, users)
            if limit is None or counts[SESSIONS] < limit:
                output.write_row(row, _format_row)
            counts.update({SESSIONS: 1, row["state"]: 1, TOKENS: len(session.tokens)})
            counts[REVOCABLE_TOKENS] += len(session.list_revocable(provider))
    return counts


def _format_counts(counts: Counter[str]) -> str:
    states = ", ".join(f"{counts[state]} {state}" for state in (LIVE, ANONYMOUS, EXPIRED))
    return (
        f"{counts[SESSIONS]} sessions of other backends: "
        f"{states}. They store {counts[TOKENS]} tokens."
    )


def _iterate_sessions(options: Options) -> Iterator[ForeignSession]:
    """Yield the sessions, or those of `--user`. Raises: CommandError."""
    if not has_session_table():
        raise CommandError(
            f"The sessions of {settings.SESSION_ENGINE} cannot be searched, because they are not "
            "in a table. To end them, clear the cache or the folder that stores them, or change "
            "SECRET_KEY; all users must sign in again."
        )
    user_pk = None
    if options["user"] is not None:
        user = get_user(options["user"])
        user_pk = user._meta.pk.value_to_string(user)
    return (session for session in iterate_foreign_sessions() if user_pk in (None, session.user_id))


def _find_users(sessions: Iterable[ForeignSession]) -> Mapping[str, Any]:
    """Return the users by what a session stores of their primary key."""
    field = get_user_model()._meta.pk
    user_pks = set()
    for session in sessions:
        try:
            user_pks.add(field.to_python(session.user_id))
        except ValidationError:
            continue
    users = get_user_model()._base_manager.in_bulk(user_pks)
    result = {}
    for user in users.values():
        result[field.value_to_string(user)] = user
    return result


def _build_row(session: ForeignSession, users: Mapping[str, Any]) -> dict[str, Any]:
    user = users.get(session.user_id)

    if session.backend in settings.AUTHENTICATION_BACKENDS:
        state = LIVE
    else:
        state = ANONYMOUS

    return {
        "user": describe_user(user) if user else "",
        "user_pk": session.user_id,
        "backend": session.backend,
        "expires_at": session.expires_at,
        "state": EXPIRED if session.expires_at <= clock.now() else state,
        "tokens": len(session.tokens),
        "provider": session.provider,
    }


def _format_row(row: Mapping[str, Any]) -> str:
    if row["tokens"]:
        tokens = f", {row['tokens']} tokens of {row['provider'] or 'an unknown provider'}"
    else:
        tokens = ""

    times = f"{row['state']}, until {format_value(row['expires_at'])}"
    user = format_untrusted(row["user"]) or f"(no user {format_untrusted(row['user_pk'])})"
    return f"{user}  {format_untrusted(row['backend'])}  {times}{tokens}"
