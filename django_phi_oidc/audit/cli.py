"""Operates the audit trail."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any, TextIO

from django.core.management.base import CommandError

from ..errors import AuditUnavailable
from . import outbox
from .models import AuditOutbox


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the subcommands of `audit`."""
    commands = parser.add_subparsers(dest="audit_command", required=True)
    commands.add_parser("drain", help="move to the trail what waits in the outbox")


def handle(options: Mapping[str, Any], *, stdout: TextIO, stderr: TextIO) -> None:
    """Do what the subcommand says.

    Raises: CommandError when the trail can't be written, or an event stays behind.
    """
    {"drain": _drain}[options["audit_command"]](stdout)


def _drain(stdout: TextIO) -> None:
    moved = 0
    try:
        while step := outbox.drain():
            moved += step
    except AuditUnavailable as error:
        raise CommandError(f"{error} Moved: {moved}; the others wait in the outbox.") from error
    if left := AuditOutbox.objects.count():
        raise CommandError(f"Moved: {moved}; left in the outbox: {left}, the log says why.")
    stdout.write(f"Moved: {moved}.\n")
