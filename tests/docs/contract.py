"""What a host project may rely on, read from the code: `python -m tests.docs.contract` writes it to contract.json."""

import json
import re
from argparse import ArgumentParser
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import django
from celery import current_app
from django.apps import apps
from django.core.management import load_command_class

from tests.support.rule_code_catalogue import list_all_codes

ROOT = Path(__file__).resolve().parents[2]
FILE = Path(__file__).with_name("contract.json")
VARIABLE = re.compile(r"[\"']((?:OIDC|PHI)_[A-Z_]+)[\"']")


def read_contract() -> dict[str, Any]:
    """Return rule codes, event actions, URLs, environment variables, commands with their options, checks and tasks."""
    if not apps.ready:
        django.setup()
    events, schedule, urls, _ = (
        import_module(f"django_phi_oidc.{name}") for name in ("audit.events", "schedule", "urls", "tasks")
    )
    return {
        "actions": sorted(action.value for action in events.Action),
        "beat": {name: entry["task"] for name, entry in sorted(schedule.beat_schedule().items())},
        "checks": sorted(set(re.findall(r"\b[EW]\d\d\d\b", (ROOT / "docs/reference/checks.md").read_text()))),
        "codes": sorted(code.value for code in list_all_codes()),
        "commands": _list_options(
            load_command_class("django_phi_oidc", "phi_oidc").create_parser("manage.py", "phi_oidc")
        ),
        "environment": sorted(
            {name for path in (ROOT / "example_project").rglob("*.py") for name in VARIABLE.findall(path.read_text())}
        ),
        "tasks": sorted(name for name in current_app.tasks if name.startswith("phi_oidc")),
        "urls": sorted([str(pattern.pattern), pattern.name] for pattern in urls.urlpatterns),
    }


def list_django_options(parser: ArgumentParser) -> set[str]:
    """Return the options of every command of Django, which each subcommand has as well."""
    return {option for action in parser._actions for option in action.option_strings if action.dest != "help"}


def _list_options(parser: ArgumentParser) -> dict[str, list[str]]:
    """Return the options of each subcommand without those of Django."""
    return {f"phi_oidc{name}": options for name, options in _walk(parser, "", list_django_options(parser)) if name}


def _walk(parser: ArgumentParser, prefix: str, omitted: set[str]) -> Iterator[tuple[str, list[str]]]:
    options, subparsers = [], dict[str, ArgumentParser]()
    for action in parser._actions:
        if isinstance(action.choices, dict):
            subparsers |= action.choices
        elif not omitted.issuperset(action.option_strings) or not action.option_strings:
            options.append("/".join(action.option_strings) or f"<{action.dest}>")
    yield prefix, sorted(options)
    for name, subparser in subparsers.items():
        yield from _walk(subparser, f"{prefix} {name}", omitted)


if __name__ == "__main__":
    FILE.write_text(json.dumps(read_contract(), indent=1) + "\n")
