"""The list of docs/how-to/choose-apps.md with what each app adds, from the app configurations: `make reference`."""

import re
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from typing import Any

import django
from django.apps import apps

from django_phi_oidc._internal.app_configs import FeatureConfig, list_installed_features
from django_phi_oidc.management.subcommands.apps import describe_feature, list_available_features
from tests.support.manual_blocks import PAGES

LIST = re.compile(r"(?P<head><!-- `make reference` writes this list -->\n).*?(?P<foot>\n<!-- end -->)", re.DOTALL)
EXTENDED = {"sessions": ("list", "end")}
"""The subcommands of the core to which apps add options."""
PREFIX = "django_phi_oidc."
REQUIRED_APPS = {"django_phi_oidc", "django_phi_oidc.audit"}


def regenerate(page: str) -> str:
    """Return the page with a new list."""
    return LIST.sub(lambda hit: hit["head"] + "\n".join(build_rows()) + hit["foot"], page)


def list_app_names() -> list[str]:
    """Return the names of all apps of this package, the core and the audit log first."""
    installed = [config.name for config in list_installed_features()]
    available = [config_class.name for config_class in list_available_features()]
    return list(dict.fromkeys([*installed, *available]))


def list_needs() -> dict[str, list[str]]:
    """Return the names of the apps that each app needs."""
    configs = [*map(type, list_installed_features()), *list_available_features()]
    return {config.name: list(config.requires) for config in configs}


def build_rows() -> Iterator[str]:
    """Yield the lines of the list, in the order of INSTALLED_APPS; without the apps that every project has."""
    installed = list_installed_features()
    for config in installed:
        if config.name in REQUIRED_APPS:
            continue
        others = [other for other in installed if other is not config]
        row = describe_feature(config, others)
        parts = {
            "tables": [name.removeprefix(f"{config.label}_") for name in row["tables"]],
            "URLs": [name.removeprefix("oidc_") for name in row["urls"]],
            "tasks": [name.removeprefix("phi_oidc.") for name in row["tasks"]],
            "settings": row["settings"],
            "subcommands": [*row["subcommands"], *list_nested_subcommands(config), *list_link_sources(config)],
        }
        shown = [f"{kind} {format_names(names)}" for kind, names in parts.items() if names]
        yield f"- `{short_name(config.name)}`: {'; '.join(shown)}"


def short_name(name: str) -> str:
    return name.removeprefix(PREFIX)


def format_names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def list_nested_subcommands(config: FeatureConfig) -> list[str]:
    names = []
    for parent in config.nested_subcommands:
        commands: Any = ArgumentParser().add_subparsers()
        extended = [commands.add_parser(name, add_help=False) for name in EXTENDED.get(parent, ())]
        for module in config.import_nested_subcommands(parent):
            module.add_subcommands(commands)
        for name, parser in commands.choices.items():
            if parser not in extended:
                names.append(f"{parent} {name}")
            else:
                names += [f"{parent} {name} {action.option_strings[0]}" for action in parser._actions]
    return names


def list_link_sources(config: FeatureConfig) -> list[str]:
    parser = ArgumentParser(add_help=False)
    sources: Any = parser.add_mutually_exclusive_group()
    for module in config.import_link_sources():
        module.add_source(parser, sources)
    return [f"subject link {action.option_strings[0]}" for action in sources._group_actions]


if __name__ == "__main__":
    if not apps.ready:
        django.setup()
    PAGES["choose-apps"].write_text(regenerate(PAGES["choose-apps"].read_text()))
