"""Attacks this project's own settings, middleware and URLs, and says what it fell for."""

from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, OutputWrapper

from ... import conf
from ...testing.attack.environment import Portal
from ...testing.attack.environment_setup import set_up_attack_environment
from ...testing.attack.report import AttackOutcome, render_json, render_junit, render_line, render_total
from ...testing.attack.suite import get_default_provider, run_attacks, select_attacks


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
    name = options["provider"] or get_default_provider()
    attacks = select_attacks(name, options["only"])
    outcomes: list[AttackOutcome] = []
    with set_up_attack_environment(Portal.from_settings(name), conf.claims()) as scene:
        for outcome in run_attacks(attacks, scene):
            outcomes.append(outcome)
            stdout.write(render_json(outcome) if options["json"] else render_line(outcome))
            stdout.flush()
    if options["junit"]:
        options["junit"].write_bytes(render_junit(outcomes))
    if any(outcome.result == "failed" for outcome in outcomes):
        raise CommandError(render_total(outcomes))
    if not options["json"]:
        stdout.write(render_total(outcomes))
