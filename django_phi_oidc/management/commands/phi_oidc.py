"""`manage.py phi_oidc SUBCOMMAND`: one line for each subcommand; the work is the feature's own."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from ..subcommands import (
    attack,
    audit,
    delivery,
    doctor,
    groups,
    hold,
    init,
    keys,
    register,
    roles,
    scrub,
    sessions,
    subject,
)

SUBCOMMANDS = {
    "attack": attack,
    "audit": audit,
    "delivery": delivery,
    "doctor": doctor,
    "groups": groups,
    "hold": hold,
    "init": init,
    "keys": keys,
    "register": register,
    "roles": roles,
    "scrub": scrub,
    "sessions": sessions,
    "subject": subject,
}


class Command(BaseCommand):
    """Operates django_phi_oidc."""

    help = "Operates django_phi_oidc."

    def add_arguments(self, parser: ArgumentParser) -> None:
        subparsers = parser.add_subparsers(dest="subcommand", required=True)
        for name, module in SUBCOMMANDS.items():
            summary = (module.__doc__ or "").partition("\n")[0]
            module.add_arguments(subparsers.add_parser(name, help=summary, description=summary))

    def execute(self, *args: Any, **options: Any) -> str | None:
        """`init` and `keys generate` mend what the checks stop others for; a proof is checked without the portal."""
        asked = (options.get("subcommand"), options.get("keys_command"), options.get("audit_command"))
        if {"init", "generate", "check-proof"} & set(asked):
            options["skip_checks"] = True
        return super().execute(*args, **options)

    def handle(self, *args: Any, **options: Any) -> None:
        SUBCOMMANDS[options["subcommand"]].handle(options, stdout=self.stdout, stderr=self.stderr)
