"""Show the configuration in effect without secrets, or record it in the audit log."""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError

from ..._internal import clock
from ..._internal.command_arguments import Options, add_command
from ..._internal.command_output import Output
from ...config.option_parsers import parse_name
from ...errors import DeclarationInvalid
from ..configuration import (
    WORKER_COMPONENT,
    EffectiveConfiguration,
    read_configuration,
    record_configuration,
)

READING_COMMANDS = ("configuration show",)


def add_arguments(parser: ArgumentParser) -> None:
    commands = parser.add_subparsers(
        dest="configuration_command", required=True, metavar="SUBCOMMAND"
    )
    add_command(
        commands,
        "show",
        _show,
        "Print its digest, the warnings of the checks and the silenced checks.",
    )
    record_help = "Record it, with an event if it has changed; then print the same as show."
    record = add_command(commands, "record", _record, record_help)
    help_text = "A name for the processes that share this configuration, such as web."
    record.add_argument("component", type=_parse_component, metavar="COMPONENT", help=help_text)


def _show(options: Options, output: Output) -> None:
    _write(read_configuration(), output)


def _record(options: Options, output: Output) -> None:
    """Raises: CommandError if it is not recorded."""
    try:
        _write(record_configuration(options["component"], now=clock.now()), output)
    except DatabaseError as error:
        raise CommandError(f"The configuration is not recorded: {type(error).__name__}.") from error


def _parse_component(text: str) -> str:
    try:
        name = parse_name("COMPONENT", text)
    except DeclarationInvalid as error:
        raise ArgumentTypeError(str(error)) from error
    if name == WORKER_COMPONENT:
        raise ArgumentTypeError(
            f"{name} is the name of the Celery workers, which record their own configuration"
        )
    return name


def _write(configuration: EffectiveConfiguration, output: Output) -> None:
    row = {}
    for name in ("digest", "warnings", "silenced"):
        row[name] = getattr(configuration, name)
    output.write_row(row, _format_configuration)


def _format_configuration(row: Mapping[str, Any]) -> str:
    lists = []
    for name in ("warnings", "silenced"):
        lists.append(f"{name}: {', '.join(row[name]) or 'none'}")
    return "\n".join([f"digest: {row['digest']}", *lists])
