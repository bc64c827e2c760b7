"""Shows the state of the SIEM sinks, and delivers to them now."""

from argparse import ArgumentParser
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.core.management.base import CommandError

from ..._internal import clock
from ...audit.log import cursor as log_cursor
from ...config.sinks import SinkDeclaration
from ...siem import delivery
from ...siem.models import SinkCursor
from ...siem.tasks import deliver_to_due_sinks, get_declared_sinks
from ._arguments import Options, add_command
from ._output import Output


def add_arguments(parser: ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="delivery_command", required=True)
    status = add_command(commands, "status", _show_status, "show how many events each sink has received")
    status.add_argument("--json", action="store_true", help="one object per line")
    deliver = add_command(commands, "deliver", _deliver, "deliver to all sinks now, regardless of their back-off")
    deliver.add_argument("--seconds", type=float, default=600.0, help="stop after this many seconds (default: 600)")


def _show_status(options: Options, output: Output) -> None:
    now, sinks = clock.now(), get_declared_sinks()
    cursors = delivery.get_cursors(tuple(sinks), now=now)
    log_size = log_cursor.get_newest_tree_size()
    if not sinks and not output.as_json:
        output.write("No sinks are declared.")
    for name, declaration in sinks.items():
        output.write_row(_build_status(declaration, cursors[name], log_size=log_size, now=now), _format_status)


def _build_status(
    declaration: SinkDeclaration, sink_cursor: SinkCursor, *, log_size: int, now: datetime
) -> dict[str, Any]:
    since = log_cursor.find_oldest_sealing_time(sink_cursor.checkpoint_size)
    return {
        "sink": sink_cursor.name,
        "type": declaration.type,
        "format": declaration.format,
        "tree_size": sink_cursor.tree_size,
        "checkpoint_size": sink_cursor.checkpoint_size,
        "behind": log_size - sink_cursor.tree_size,
        "lag_seconds": int((now - since).total_seconds()) if since else 0,
        "is_lagging": sink_cursor.lagging,
        "attempts": sink_cursor.attempts,
        "last_fault": sink_cursor.last_fault,
        "due_at": sink_cursor.due_at.isoformat(),
        "delivered_at": sink_cursor.delivered_at.isoformat() if sink_cursor.delivered_at else None,
    }


def _format_status(status: Mapping[str, Any]) -> str:
    text = f"{status['sink']} ({status['type']}, {status['format']}): {status['tree_size']} events"
    if status["lag_seconds"] or status["behind"]:
        text += f", {status['behind']} behind for {status['lag_seconds']} s"
    return text + (f", {status['last_fault']} after {status['attempts']} attempts" if status["last_fault"] else "")


def _deliver(options: Options, output: Output) -> None:
    delivery.make_due_now(tuple(get_declared_sinks()), now=clock.now())
    results = deliver_to_due_sinks(seconds=options["seconds"])
    for name, result in results.items():
        output.write(f"{name}: {result.accepted} delivered{f', {result.fault}' if result.fault else ''}.")
    if behind := sorted(name for name, result in results.items() if not result.is_caught_up):
        raise CommandError(f"Not all events were delivered to {', '.join(behind)}.")
