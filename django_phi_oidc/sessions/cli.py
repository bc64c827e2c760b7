"""Try the revocations that are pending."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError, OutputWrapper

from .. import clock, conf
from . import revoking
from .models import RevocationStatus
from .tasks import CALL_SECONDS


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the subcommands of `sessions`."""
    commands = parser.add_subparsers(dest="sessions_command", required=True)
    retry = commands.add_parser("retry", help="try all pending revocations now, whatever their back-off says")
    retry.add_argument("--seconds", type=float, default=600.0, help="stop after that many seconds (default: 600)")


def handle(options: Mapping[str, Any], *, stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    """Run the subcommand. Raises: CommandError when tokens are left that are not revoked."""
    if options["sessions_command"] != "retry":
        raise CommandError(f"No such command: {options['sessions_command']}.")
    stdout.write(_retry(seconds=options["seconds"]))


def _retry(*, seconds: float) -> str:
    waiting = revoking.make_due(now=clock.now())
    results = revoking.sweep(
        clock=clock.now, seconds=seconds, deadline=CALL_SECONDS, give_up_after=conf.revocation_give_up_after()
    )
    done = results[RevocationStatus.DONE]
    told = ", ".join(f"{count} {status}" for status, count in sorted(results.items()))
    if waiting > done:
        raise CommandError(
            f"{waiting} revocations were waiting: {told or 'none could be tried'}. The audit trail says why."
        )
    return f"{waiting} revocations were waiting: {told or 'nothing to do'}."
