"""`manage.py phi_oidc SUBCOMMAND`: parse the arguments and call the handler of the subcommand."""

import time
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from ..._internal.app_configs import list_installed_features
from ..._internal.command_arguments import Options
from ..._internal.command_output import Output
from ...audit.events import Origin
from ...audit.operators import build_operator_actor, has_operator_name
from ...audit.request_context import use_origin
from ...errors import PhiOidcError
from ..subcommands._arguments import USER_FORMS, get_user


def _import_subcommands() -> dict[str, ModuleType]:
    modules: dict[str, ModuleType] = {}
    for config in list_installed_features():
        modules.update(config.import_subcommands())
    return dict(sorted(modules.items()))


SUBCOMMANDS = _import_subcommands()
"""The modules of the subcommands by name, of the apps that are installed.

A module may have READING_COMMANDS, the names of its subcommands that record no event: all others
are refused if there is no actor for their events. READING_OPTIONS names an option with which a
subcommand records no event, as each does with `--dry-run`. COMMANDS_WITHOUT_CHECKS names those that
correct what the checks report, or need no portal.
"""
READING_COMMANDS: set[str] = set()
READING_OPTIONS: dict[str, str] = {}
COMMANDS_WITHOUT_CHECKS: set[str] = set()
for _module in SUBCOMMANDS.values():
    READING_COMMANDS.update(getattr(_module, "READING_COMMANDS", ()))
    READING_OPTIONS.update(getattr(_module, "READING_OPTIONS", {}))
    COMMANDS_WITHOUT_CHECKS.update(getattr(_module, "COMMANDS_WITHOUT_CHECKS", ()))
EXIT_STATUSES = (
    "Exit status: 0 if it succeeds; 1 if it fails, or finds a fault; 2 for wrong arguments."
)


class SubcommandParser(CommandParser):
    """Prints one sentence about wrong arguments, without the usage, which has all options of
    Django.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.subcommands: Mapping[str, SubcommandParser] = {}
        self.requires_subcommand = False

    def add_subparsers(self, **options: Any) -> Any:
        subparsers = super().add_subparsers(**options)
        self.subcommands = subparsers.choices
        self.requires_subcommand = subparsers.required
        return subparsers

    def error(self, message: str) -> Any:
        if self.called_from_command_line:
            self.exit(2, f"{self.prog}: error: {message}\n")
        return super().error(message)


class Command(BaseCommand):
    """Operate django_phi_oidc."""

    help = "Operate django_phi_oidc."

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.subcommands: Mapping[str, SubcommandParser] = {}
        self._django_arguments: list[tuple[tuple[str, ...], dict[str, Any]]] = []

    def add_base_argument(self, parser: CommandParser, *args: str, **options: Any) -> None:
        """Add an option of all commands of Django. Subcommands get it as well."""
        self._django_arguments.append((args, options))
        super().add_base_argument(parser, *args, **options)

    def add_arguments(self, parser: ArgumentParser) -> None:
        subparsers = parser.add_subparsers(
            dest="subcommand", required=True, metavar="SUBCOMMAND", parser_class=SubcommandParser
        )
        self.subcommands = subparsers.choices
        for name, module in SUBCOMMANDS.items():
            first_paragraph = (module.__doc__ or "").partition("\n\n")[0]
            summary = " ".join(first_paragraph.split())
            module.add_arguments(subparsers.add_parser(name, help=summary, description=summary))
        for name, subparser in list_subcommands(self.subcommands):
            subparser.set_defaults(full_name=name)
            subparser.epilog = EXIT_STATUSES
            # No default: `evidence --json verify` has its value before the second subcommand is
            # parsed.
            json_help = "Write JSON, one object per line."
            subparser.add_argument("--json", action="store_true", default=SUPPRESS, help=json_help)
            if name not in READING_COMMANDS:
                help_text = (
                    "Your account, recorded in the events with your "
                    f"name on this system: {USER_FORMS}."
                )
                subparser.add_argument("--as", dest="as_user", metavar="USER", help=help_text)
        for subparser in subparsers.choices.values():
            self._add_django_arguments(subparser)

    def _add_django_arguments(self, parser: SubcommandParser) -> None:
        """Accept the options of all commands of Django after the subcommand, too. The last value
        counts.
        """
        group = parser.add_argument_group("options of every command of Django")
        # Without a default, an option that comes before the subcommand keeps its value.
        for names, options in self._django_arguments:
            group.add_argument(*names, **{**options, "default": SUPPRESS})
        group.add_argument(
            "--skip-checks", action="store_true", default=SUPPRESS, help="Skip system checks."
        )
        for subparser in parser.subcommands.values():
            self._add_django_arguments(subparser)

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Skip the checks where the subcommand corrects what they report, or needs no portal."""
        if options["full_name"] in COMMANDS_WITHOUT_CHECKS:
            options["skip_checks"] = True
        return super().execute(*args, **options)

    def handle(self, *args: Any, **options: Any) -> None:
        as_json = options.get("json", False)
        verbosity = options["verbosity"]
        output = Output(
            self.stdout, self.stderr, as_json=as_json, verbosity=verbosity, style=self.style
        )
        started = time.monotonic()
        try:
            origin = _get_origin(options)
            if verbosity > 1 and origin.actor:
                output.note(f"The actor of the events is {origin.actor}.")
            with use_origin(lambda: origin):
                options["handler"](options, output)
        except (PhiOidcError, ImproperlyConfigured, OSError) as error:
            raise CommandError(str(error) or type(error).__name__) from error
        except DatabaseError as error:
            # The further lines of a message may have values of a row.
            raise CommandError(f"Database error: {str(error).partition(chr(10))[0]}") from error
        finally:
            if verbosity > 1:
                output.note(f"{options['full_name']} took {time.monotonic() - started:.1f} s.")


def list_subcommands(
    subcommands: Mapping[str, SubcommandParser], prefix: str = ""
) -> Iterator[tuple[str, SubcommandParser]]:
    """Yield the name and the parser of each subcommand that needs no further subcommand."""
    for name, parser in subcommands.items():
        if not parser.requires_subcommand:
            yield f"{prefix}{name}", parser
        yield from list_subcommands(parser.subcommands, f"{prefix}{name} ")


def _get_origin(options: Options) -> Origin:
    """Return the origin of the events of the subcommand; empty if it records none.

    Raises: CommandError without a name of the operating system or `--as`, and if there is no such
    active user.
    """
    name = options["full_name"]
    if (
        name in READING_COMMANDS
        or options.get("dry_run")
        or options.get(READING_OPTIONS.get(name, ""))
    ):
        return Origin()

    if options["as_user"] is None:
        user = None
    else:
        user = get_user(options["as_user"])

    if not getattr(user, "is_active", True):
        raise CommandError(f"User {options['as_user']} is not active.")

    if user is None:
        account_pk = ""
    else:
        account_pk = str(user.pk)

    if not account_pk and not has_operator_name():
        raise CommandError(
            "Nothing was done: this user id has no name, so the "
            "events would have no actor. Add --as USER."
        )
    return Origin(actor=build_operator_actor(account_pk=account_pk))
