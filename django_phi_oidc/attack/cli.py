"""Attacks this project's own settings, middleware and URLs, and says what it fell for."""

from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, OutputWrapper

from .. import conf
from .outcomes import Outcome, as_json, as_junit, line, total
from .running import Attack, attacks_on, run
from .scene import Portal
from .staging import staged


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `phi_oidc attack`."""
    parser.add_argument("--provider", metavar="NAME", help="whose declaration is attacked (default: the first)")
    parser.add_argument(
        "--only", metavar="CODE", action="append", default=[], help="these rules alone; may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="an object a line, for each attack")
    parser.add_argument("--junit", metavar="FILE", type=Path, help="write a JUnit XML report, too")


def handle(options: Mapping[str, Any], *, stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    """Tell what comes of each attack. Raises: CommandError when one was not held, or there is no such attack."""
    name = options["provider"] or default_provider()
    attacks = chosen(name, options["only"])
    outcomes: list[Outcome] = []
    with staged(Portal.of(name), conf.claims()) as scene:
        for outcome in run(attacks, scene):
            outcomes.append(outcome)
            stdout.write(as_json(outcome) if options["json"] else line(outcome))
            stdout.flush()
    if options["junit"]:
        options["junit"].write_bytes(as_junit(outcomes))
    if any(outcome.result == "failed" for outcome in outcomes):
        raise CommandError(total(outcomes))
    if not options["json"]:
        stdout.write(total(outcomes))


def default_provider() -> str:
    """Return the name of the first provider. Raises: CommandError."""
    if not conf.providers():
        raise CommandError("No provider is declared.")
    return next(iter(conf.providers()))


def chosen(provider: str, only: Sequence[str] = ()) -> list[Attack]:
    """Return the attacks of those codes, or all. Raises: CommandError where there is none, or no such provider."""
    if provider not in conf.providers():
        raise CommandError(f"There is no provider {provider}.")
    attacks = attacks_on(conf.providers()[provider], claims=list(conf.claims()))
    if unknown := set(only) - {attack.code for attack in attacks}:
        raise CommandError(f"There is no attack for {', '.join(sorted(unknown))}.")
    return [attack for attack in attacks if not only or attack.code in only]
