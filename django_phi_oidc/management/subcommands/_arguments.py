"""Arguments that several subcommands share."""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.core.management.base import CommandError

from ... import conf
from ...config.providers import ProviderDeclaration
from ._output import Output

Options = Mapping[str, Any]
Handler = Callable[[Options, Output], None]
_MAX_DIGITS = 9


def add_command(commands: Any, name: str, handler: Handler, help_text: str) -> ArgumentParser:
    """Add a subcommand that handler handles to the subparsers in commands."""
    parser: ArgumentParser = commands.add_parser(name, help=help_text)
    parser.set_defaults(handler=handler)
    return parser


def get_user_by_pk(pk: str) -> Any:
    """Return the user with that primary key. Raises: CommandError."""
    try:
        return get_user_model()._default_manager.get(pk=pk)
    except (ObjectDoesNotExist, ValidationError, ValueError) as error:
        raise CommandError(f"There is no user {pk}.") from error


def get_provider(name: str) -> ProviderDeclaration:
    """Return the declared provider with that name. Raises: CommandError."""
    provider = conf.providers().get(name)
    if provider is None:
        raise CommandError(f"There is no provider {name}.")
    return provider


def parse_time(text: str) -> datetime:
    """Return an ISO 8601 date or time; without an offset it is UTC."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError("a time is written as in 2026-11-24 or 2026-11-24T16:05:00+01:00") from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def parse_number(text: str) -> int:
    """Return a whole number of at most nine digits."""
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_DIGITS:
        raise ArgumentTypeError("a whole number is expected")
    return int(text)
