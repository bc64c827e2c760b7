"""Arguments that subcommands of several apps share."""

import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import CommandError

from .command_output import Output, format_untrusted
from .suggestions import suggest

Options = Mapping[str, Any]
Handler = Callable[[Options, Output], None]
PUBLIC_KEY_HELP = "A verifier key of the audit log, PEM, base64, or their file; may be repeated."
_MAX_DIGITS = 9


def build_argument_error(message: str) -> CommandError:
    """Return the error of wrong arguments, with the status of those that argparse refuses: nothing
    was done.
    """
    return CommandError(message, returncode=2)


def add_command(commands: Any, name: str, handler: Handler, help_text: str) -> ArgumentParser:
    """Add a subcommand that handler handles to the subparsers in commands. help_text: an imperative
    sentence.
    """
    parser: ArgumentParser = commands.add_parser(name, help=help_text, description=help_text)
    parser.set_defaults(handler=handler)
    return parser


def add_dry_run(parser: ArgumentParser) -> None:
    """Add `--dry-run` to a subcommand that deletes or ends something. With it, the subcommand
    records no event.
    """
    parser.add_argument(
        "--dry-run", action="store_true", help="Print what would be affected, and change nothing."
    )


def add_confirmation(parser: ArgumentParser) -> None:
    """Add `--yes` to a subcommand that calls require_confirmation."""
    parser.add_argument("--yes", action="store_true", help="Do not ask for confirmation.")


def require_confirmation(question: str, options: Options, *, refusal: str) -> None:
    """Raises: CommandError, with refusal if the operator declines, and if there are neither `--yes`
    nor a terminal.
    """
    if options["yes"]:
        return
    if not sys.stdin.isatty():
        raise build_argument_error(f"{question} Add --yes to confirm.")
    if input(f"{question} Type yes: ").strip() != "yes":
        raise CommandError(refusal)


def create_choice_parser(kind: str, names: Collection[str]) -> Callable[[str], str]:
    """Return a type of an argument that accepts only these names, and suggests the nearest ones for
    another one.
    """

    def parse_choice(text: str) -> str:
        if text not in names:
            raise ArgumentTypeError(
                f"there is no {kind} {format_untrusted(text)}.{suggest(text, names)}"
            )
        return text

    return parse_choice


def parse_time(text: str) -> datetime:
    """Return an ISO 8601 date or time; without an offset it is UTC."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError(
            "a time is written as in 2026-11-24 or 2026-11-24T16:05:00+01:00"
        ) from error
    if time.tzinfo:
        return time
    return time.replace(tzinfo=UTC)


def parse_number(text: str) -> int:
    """Return a whole number of at most nine digits."""
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_DIGITS:
        raise ArgumentTypeError("a whole number is expected")
    return int(text)
