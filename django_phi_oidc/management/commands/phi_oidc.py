"""`manage.py phi_oidc SUBCOMMAND`: parse the arguments and call the handler of the subcommand."""

from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from ...errors import PhiOidcError
from ..subcommands import (
    attack,
    audit,
    configuration,
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
from ..subcommands._output import Output

_MODULES = (
    *(attack, audit, configuration, delivery, doctor, groups, hold, init, keys, register, roles, scrub, sessions),
    subject,
)
SUBCOMMANDS = {module.__name__.rpartition(".")[2]: module for module in _MODULES}
COMMANDS_WITHOUT_CHECKS = {"init", "generate", "check-proof"}


class Command(BaseCommand):
    """Operates django_phi_oidc."""

    help = "Operates django_phi_oidc."

    def add_arguments(self, parser: ArgumentParser) -> None:
        subparsers = parser.add_subparsers(dest="subcommand", required=True)
        for name, module in SUBCOMMANDS.items():
            summary = (module.__doc__ or "").partition("\n")[0]
            module.add_arguments(subparsers.add_parser(name, help=summary, description=summary))

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Skip the checks where `init` and `keys generate` fix what they report; `check-proof` needs no portal."""
        commands = {options.get(dest) for dest in ("subcommand", "keys_command", "audit_command")}
        if commands & COMMANDS_WITHOUT_CHECKS:
            options["skip_checks"] = True
        return super().execute(*args, **options)

    def handle(self, *args: Any, **options: Any) -> None:
        output = Output(self.stdout, self.stderr, as_json=options.get("json", False))
        try:
            options["handler"](options, output)
        except (PhiOidcError, ImproperlyConfigured) as error:
            raise CommandError(str(error) or type(error).__name__) from error
