"""`manage.py phi_oidc SUBCOMMAND`: parse the arguments and call the handler of the subcommand."""

from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from ...audit.events import Origin
from ...audit.operators import find_operator_actor
from ...audit.request_context import use_origin
from ...errors import PhiOidcError
from ..subcommands import (
    attack,
    audit,
    configuration,
    delivery,
    doctor,
    evidence,
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
from ..subcommands._arguments import Options, get_user_by_pk
from ..subcommands._output import Output

_MODULES = (
    *(attack, audit, configuration, delivery, doctor, evidence, groups, hold, init, keys, register, roles, scrub),
    *(sessions, subject),
)
SUBCOMMANDS = {module.__name__.rpartition(".")[2]: module for module in _MODULES}
READING_COMMANDS = {
    *("attack", "doctor", "init", "register", "roles explain"),
    *("audit check-proof", "audit checkpoint", "audit consistency", "audit grants", "audit repair"),
    *("keys generate", "keys retire", "keys rotate", "keys status"),
    *("configuration show", "delivery status", "evidence verify", "hold list", "sessions list", "subject list"),
}
"""Subcommands that record no event. All others are refused if there is no actor for their events."""
READING_OPTIONS = {"audit verify": "copy", "groups": "check", "scrub": "report"}
"""With this option, the subcommand records no event."""
COMMANDS_WITHOUT_CHECKS = {"init", "keys generate", "audit check-proof", "evidence verify"}


class Command(BaseCommand):
    """Operates django_phi_oidc."""

    help = "Operates django_phi_oidc."

    def add_arguments(self, parser: ArgumentParser) -> None:
        subparsers = parser.add_subparsers(dest="subcommand", required=True)
        for name, module in SUBCOMMANDS.items():
            summary = (module.__doc__ or "").partition("\n")[0]
            module.add_arguments(subparsers.add_parser(name, help=summary, description=summary))
        for name, subparser in list_subcommands(parser):
            subparser.set_defaults(full_name=name)
            if name not in READING_COMMANDS:
                help_text = "primary key of your account, recorded in the events with your name on this system"
                subparser.add_argument("--as", dest="as_user", metavar="USER", help=help_text)

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Skip the checks where the subcommand corrects what they report, or needs no portal."""
        if options["full_name"] in COMMANDS_WITHOUT_CHECKS:
            options["skip_checks"] = True
        return super().execute(*args, **options)

    def handle(self, *args: Any, **options: Any) -> None:
        output = Output(self.stdout, self.stderr, as_json=options.get("json", False))
        try:
            origin = _get_origin(options)
            with use_origin(lambda: origin):
                options["handler"](options, output)
        except (PhiOidcError, ImproperlyConfigured) as error:
            raise CommandError(str(error) or type(error).__name__) from error


def list_subcommands(parser: ArgumentParser, prefix: str = "") -> Iterator[tuple[str, ArgumentParser]]:
    """Yield the name and the parser of each subcommand that needs no further subcommand."""
    subparsers = [
        (action.required, action.choices) for action in parser._actions if isinstance(action.choices, Mapping)
    ]
    if not any(required for required, _ in subparsers):
        yield prefix.strip(), parser
    for _, choices in subparsers:
        for name, subparser in choices.items():
            yield from list_subcommands(subparser, f"{prefix} {name}")


def _get_origin(options: Options) -> Origin:
    """Return the origin of the events of the subcommand; empty if it records none.

    Raises: CommandError without a name of the operating system or `--as`, and if there is no such active user.
    """
    name = options["full_name"]
    if name in READING_COMMANDS or options.get(READING_OPTIONS.get(name, "")):
        return Origin()
    user = None if options["as_user"] is None else get_user_by_pk(options["as_user"])
    if not getattr(user, "is_active", True):
        raise CommandError(f"User {options['as_user']} is not active.")
    actor = find_operator_actor(account_pk="" if user is None else str(user.pk))
    if actor is None:
        raise CommandError(
            "Nothing was done: this user id has no name, so the events would have no actor. Add --as USER."
        )
    return Origin(actor=actor)
