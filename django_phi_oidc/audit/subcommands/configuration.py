"""Show the configuration in effect without secrets, or record it in the audit log."""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError

from ... import extensions
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
        "Print its digest, the warnings of the checks, the silenced checks, and what apps have "
        "registered with the core.",
    )
    record_help = (
        "Record it, with an event if it has changed; then print its digest and the checks."
    )
    record = add_command(commands, "record", _record, record_help)
    help_text = "A name for the processes that share this configuration, such as web."
    record.add_argument("component", type=_parse_component, metavar="COMPONENT", help=help_text)


def _show(options: Options, output: Output) -> None:
    row = _build_row(read_configuration())
    row["registered"] = _list_registered()
    output.write_row(row, _format_configuration)


def _record(options: Options, output: Output) -> None:
    """Raises: CommandError if it is not recorded."""
    try:
        configuration = record_configuration(options["component"], now=clock.now())
    except DatabaseError as error:
        raise CommandError(f"The configuration is not recorded: {type(error).__name__}.") from error
    output.write_row(_build_row(configuration), _format_configuration)


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


def _build_row(configuration: EffectiveConfiguration) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name in ("digest", "warnings", "silenced"):
        row[name] = getattr(configuration, name)
    return row


def _list_registered() -> dict[str, list[str]]:
    """Return what apps have registered, in the order in which it is called, by the name of the
    registry. Registries without an item are omitted.
    """
    registered = {}
    for name, registry in sorted(vars(extensions).items()):
        if isinstance(registry, extensions.Registry) and registry:
            registered[name] = [_get_dotted_name(item) for item in registry]
    return registered


def _get_dotted_name(item: Any) -> str:
    """Return the dotted name of a function, or of the class of an object."""
    if not hasattr(item, "__qualname__"):
        item = type(item)
    return f"{item.__module__}.{item.__qualname__}"


def _format_configuration(row: Mapping[str, Any]) -> str:
    lines = [f"digest: {row['digest']}"]
    for name in ("warnings", "silenced"):
        lines.append(f"{name}: {', '.join(row[name]) or 'none'}")
    for name, items in row.get("registered", {}).items():
        lines.append(f"{name}: {', '.join(items)}")
    return "\n".join(lines)
