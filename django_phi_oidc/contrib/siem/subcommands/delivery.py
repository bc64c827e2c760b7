"""Show the state of the SIEM sinks, and deliver to them now."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError

from ...._internal import clock
from ...._internal.command_arguments import Options, add_command
from ...._internal.command_output import Output
from .. import delivery
from ..status import SinkStatus, list_sink_statuses
from ..tasks import deliver_to_due_sinks, get_declared_sinks

READING_COMMANDS = ("delivery status",)


def add_arguments(parser: ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="delivery_command", required=True, metavar="SUBCOMMAND")
    help_text = "Show how many events each sink has received, and fail if one is broken."
    add_command(commands, "status", _show_status, help_text)
    deliver = add_command(
        commands, "deliver", _deliver, "Deliver to all sinks now, regardless of their back-off."
    )
    deliver.add_argument(
        "--seconds", type=float, default=600.0, help="Stop after this many seconds (default: 600)."
    )


def _show_status(options: Options, output: Output) -> None:
    """Raises: CommandError if a sink is broken: its last attempt failed, or it lacks events for too
    long.
    """
    statuses = list_sink_statuses(get_declared_sinks(), now=clock.now())
    if not statuses:
        output.write("No sinks are declared.")
    broken = list[str]()
    for status in statuses:
        row = _build_row(status)
        problems = row["problems"]
        text = _format_status(row)
        if problems:
            text = output.colour(text, "failure")
            broken.append(f"{row['sink']} ({', '.join(problems)})")
        output.write_row(row, text)
    if broken:
        raise CommandError(f"Broken sinks: {', '.join(broken)}.")


def _build_row(status: SinkStatus) -> dict[str, Any]:
    declaration = status.declaration
    cursor = status.cursor
    problems = []
    if cursor.last_fault:
        problems.append("failing")
    if status.is_late:
        problems.append("late")
    delivered_at = None
    if cursor.delivered_at:
        delivered_at = cursor.delivered_at.isoformat()
    return {
        "sink": cursor.name,
        "type": declaration.type,
        "format": declaration.format,
        "tree_size": cursor.tree_size,
        "checkpoint_size": cursor.checkpoint_size,
        "behind": status.missing_count,
        "lag_seconds": int(status.lag.total_seconds()),
        "is_lagging": status.is_late,
        "problems": problems,
        "attempts": cursor.attempts,
        "last_fault": cursor.last_fault,
        "due_at": cursor.due_at.isoformat(),
        "delivered_at": delivered_at,
    }


def _format_status(status: Mapping[str, Any]) -> str:
    text = f"{status['sink']} ({status['type']}, {status['format']}): {status['tree_size']} events"
    if status["lag_seconds"] or status["behind"]:
        text += f", {status['behind']} behind for {status['lag_seconds']} s"
    if status["last_fault"]:
        text += f", {status['last_fault']} after {status['attempts']} attempts"
    return text


def _deliver(options: Options, output: Output) -> None:
    delivery.make_due_now(tuple(get_declared_sinks()), now=clock.now())
    results = deliver_to_due_sinks(seconds=options["seconds"])
    behind = []
    for name, result in results.items():
        row = {
            "sink": name,
            "delivered": result.accepted,
            "fault": result.fault,
            "is_caught_up": result.is_caught_up,
        }
        text = f"{name}: {result.accepted} delivered"
        if result.fault:
            text += f", {result.fault}"
        output.confirm(row, f"{text}.")

        if not result.is_caught_up:
            behind.append(name)
    if behind:
        raise CommandError(f"Not all events were delivered to {', '.join(sorted(behind))}.")
