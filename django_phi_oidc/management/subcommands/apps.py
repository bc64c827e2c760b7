"""List the apps of this package: which are installed, what each adds, and what it needs."""

from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from django.core.management.base import CommandError
from django.urls import URLPattern, URLResolver

from ..._internal.app_configs import FeatureConfig, list_installed_features
from ..._internal.app_tables import list_left_tables
from ..._internal.command_arguments import Options
from ..._internal.command_output import Output
from ...config.sections import iter_app_configs

CORE_NAME = "django_phi_oidc"
READING_COMMANDS = ("apps",)


def add_arguments(parser: ArgumentParser) -> None:
    parser.set_defaults(handler=handle)


def handle(options: Options, output: Output) -> None:
    """Write a row for each app. Raises: CommandError if the tables of a removed app have rows."""
    installed = list_installed_features()
    for config in installed:
        others = []
        for other in installed:
            if other is not config:
                others.append(other)
        output.write_row(describe_feature(config, others), _format_row)
    names = {config.name for config in installed}
    for config_class in list_available_features():
        if config_class.name not in names:
            row = {
                "app": config_class.name,
                "installed": False,
                "needs": list(config_class.requires),
            }
            output.write_row(row, _format_row)
    if left := list_left_tables():
        raise CommandError(
            f"{', '.join(left)}: these tables have rows, and their app is not in INSTALLED_APPS."
        )


def list_available_features() -> Iterator[type[FeatureConfig]]:
    """Yield the configuration class of each app below contrib/.

    They are found by their folder, because the core names no app.
    """
    for config_class in iter_app_configs():
        if config_class.name.startswith(f"{CORE_NAME}.contrib."):
            yield config_class


def describe_feature(config: FeatureConfig, others: Iterable[FeatureConfig]) -> dict[str, Any]:
    """Return what an installed app adds. others: the other installed apps, whose URLs are not
    listed for the core, although its URLs include them.
    """
    other_urls: set[str] = set()
    if config.name == CORE_NAME:
        for other in others:
            other_urls.update(_list_url_names(other))
    return {
        "app": config.name,
        "installed": True,
        "needs": list(config.requires),
        "tables": sorted(model._meta.db_table for model in config.get_models()),
        "urls": sorted(_list_url_names(config) - other_urls),
        "tasks": sorted(config.beat),
        "settings": sorted(_list_settings(config)),
        "subcommands": [name.replace("_", "-") for name in config.subcommands],
    }


def _list_url_names(config: FeatureConfig) -> set[str]:
    module = config.find_module("urls")
    if module is None:
        return set()
    return set(_iterate_url_names(module.urlpatterns))


def _iterate_url_names(patterns: list[URLPattern | URLResolver]) -> Iterator[str]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from _iterate_url_names(pattern.url_patterns)
        elif pattern.name:
            yield pattern.name


def _list_settings(config: FeatureConfig) -> Iterator[str]:
    if config.options is not None:
        yield from (field.name for field in fields(config.options))
    if config.group_members is not None:
        group, members = config.group_members
        yield from (f"{group}['{field.name}']" for field in fields(members))
    if config.provider_option is not None:
        name, _declaration = config.provider_option
        yield f"PROVIDERS[…]['{name}']"


def _format_row(row: Mapping[str, Any]) -> str:
    if not row["installed"]:
        return f"{row['app']}: not installed{_format_part('needs', row)}"
    parts = []
    for name in ("needs", "tables", "urls", "tasks", "settings", "subcommands"):
        parts.append(_format_part(name, row))
    return f"{row['app']}: installed{''.join(parts)}"


def _format_part(name: str, row: Mapping[str, Any]) -> str:
    values = row[name]
    if not values:
        return ""
    return f"\n  {name}: {', '.join(values)}"
