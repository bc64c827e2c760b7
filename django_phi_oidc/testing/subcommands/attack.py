"""Attack this project's settings, middleware and URLs, and report which attacks succeed."""

from argparse import ArgumentParser
from pathlib import Path

from django.core.management.base import CommandError

from ... import conf
from ..._internal.command_arguments import Options
from ..._internal.command_output import Output
from ..attack.environment import Portal
from ..attack.environment_setup import set_up_attack_environment
from ..attack.report import AttackOutcome, render_json, render_junit, render_line, render_total
from ..attack.suite import get_default_provider, run_attacks, select_attacks

READING_COMMANDS = ("attack",)

_LEVELS = {"held": "ok", "failed": "failure", "accepted by choice": "warning"}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--provider", metavar="NAME", help="Whose declaration to attack (default: the first)."
    )
    only_help = "Run only the attacks on this rule; may be repeated."
    parser.add_argument("--only", metavar="CODE", action="append", default=[], help=only_help)
    parser.add_argument("--junit", metavar="FILE", type=Path, help="Also write a JUnit XML report.")
    parser.set_defaults(handler=handle)


def handle(options: Options, output: Output) -> None:
    """Print the outcome of each attack. Raises: CommandError if one succeeds, or there is no such
    attack.
    """
    name = options["provider"] or get_default_provider()
    attacks = select_attacks(name, options["only"])
    outcomes: list[AttackOutcome] = []
    with set_up_attack_environment(Portal.from_settings(name), conf.claims()) as environment:
        for outcome in run_attacks(attacks, environment):
            outcomes.append(outcome)
            if output.as_json:
                text = render_json(outcome)
            else:
                text = output.colour(render_line(outcome), _LEVELS.get(outcome.result, ""))
            output.stdout.write(text)
            output.stdout.flush()
    if options["junit"]:
        options["junit"].write_bytes(render_junit(outcomes))
    if any(outcome.result == "failed" for outcome in outcomes):
        raise CommandError(render_total(outcomes))
    output.write(render_total(outcomes))
