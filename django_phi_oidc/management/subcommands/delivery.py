"""Show how far the sinks are, and deliver to them now."""

import json
from argparse import ArgumentParser
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, OutputWrapper

from ..._internal import clock
from ...audit.log import cursor as log_cursor
from ...config.sinks import SinkDeclaration
from ...errors import AuditUnavailable
from ...siem import delivery
from ...siem.models import SinkCursor
from ...siem.tasks import deliver_to_due_sinks, get_declared_sinks


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the subcommands of `delivery`."""
    commands = parser.add_subparsers(dest="delivery_command", required=True)
    status = commands.add_parser("status", help="show how far each sink is")
    status.add_argument("--json", action="store_true", help="an object a line")
    deliver = commands.add_parser("deliver", help="deliver to all sinks now, whatever their back-off says")
    deliver.add_argument("--seconds", type=float, default=600.0, help="stop after that many seconds (default: 600)")


def handle(options: Mapping[str, Any], *, stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    """Run the subcommand. Raises: CommandError when a sink does not have all, or the trail can't be read."""
    try:
        if options["delivery_command"] == "status":
            _write_status(stdout, as_json=options["json"])
        else:
            _deliver(stdout, seconds=options["seconds"])
    except (AuditUnavailable, ImproperlyConfigured) as error:
        raise CommandError(str(error)) from error


def _write_status(stdout: OutputWrapper, *, as_json: bool) -> None:
    now = clock.now()
    sinks = get_declared_sinks()
    cursors = delivery.get_cursors(tuple(sinks), now=now)
    size = log_cursor.get_newest_tree_size()
    if not sinks and not as_json:
        stdout.write("No sink is declared.")
    for name, declaration in sinks.items():
        line = _build_status(declaration, cursors[name], log_size=size, now=now)
        stdout.write(json.dumps(line) if as_json else _format_status(line))


def _build_status(declaration: SinkDeclaration, cursor: SinkCursor, *, log_size: int, now: datetime) -> dict[str, Any]:
    since = log_cursor.find_oldest_sealing_time(cursor.checkpoint_size)
    return {
        "sink": cursor.name,
        "type": declaration.type,
        "format": declaration.format,
        "tree_size": cursor.tree_size,
        "checkpoint_size": cursor.checkpoint_size,
        "behind": log_size - cursor.tree_size,
        "lag_seconds": int((now - since).total_seconds()) if since else 0,
        "is_lagging": cursor.lagging,
        "attempts": cursor.attempts,
        "last_fault": cursor.last_fault,
        "due_at": cursor.due_at.isoformat(),
        "delivered_at": cursor.delivered_at.isoformat() if cursor.delivered_at else None,
    }


def _format_status(status: Mapping[str, Any]) -> str:
    told = f"{status['sink']} ({status['type']}, {status['format']}): {status['tree_size']} events"
    if status["lag_seconds"] or status["behind"]:
        told += f", {status['behind']} behind for {status['lag_seconds']} s"
    return told + (f", {status['last_fault']} after {status['attempts']} attempts" if status["last_fault"] else "")


def _deliver(stdout: OutputWrapper, *, seconds: float) -> None:
    delivery.make_due_now(tuple(get_declared_sinks()), now=clock.now())
    results = deliver_to_due_sinks(seconds=seconds)
    for name, result in results.items():
        stdout.write(f"{name}: {result.accepted} delivered{f', {result.fault}' if result.fault else ''}.")
    if behind := sorted(name for name, result in results.items() if not result.is_caught_up):
        raise CommandError(f"Not all was delivered to {', '.join(behind)}.")
