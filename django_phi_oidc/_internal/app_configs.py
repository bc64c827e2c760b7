"""The base class of the app configurations of this package, and the apps that are installed."""

from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar

from django.apps import AppConfig, apps
from django.utils.module_loading import module_has_submodule

from ..config import sections
from .officer_groups import OfficerGroup


class FeatureConfig(AppConfig):
    """An app of this package, and what it adds to the others.

    Modules of an app are found by their names: `checks`, `errors`, `urls`, `tasks`, and
    `subcommands`.
    Each model of an app below contrib/ states its `app_label`. Without it, Django would assign the
    models of an app that is not installed to the core, because its package contains them.
    A subclass sets `default = True`, because Django finds two configurations in its `apps.py`: the
    subclass, and this class, which is imported there.
    """

    default_auto_field = "django.db.models.BigAutoField"

    options: type | None = None
    """A frozen dataclass, whose fields are the options that the app adds to PHI_OIDC."""
    group_members: tuple[str, type] | None = None
    """The name of a group of options, such as KEYS, and a frozen dataclass, whose fields are the
    members that the app adds to it.
    """
    provider_option: tuple[str, type[sections.ProviderOption]] | None = None
    """The option that the app adds to the dictionary of a provider, and the class that declares
    it.
    """
    officer_permissions: Mapping[OfficerGroup, tuple[str, ...]] = {}
    """What `phi_oidc groups` grants to groups of officers: permissions as `app_label.codename`."""

    requires: ClassVar[tuple[str, ...]] = ()
    """The names of the apps that this one needs, except the core."""
    beat: ClassVar[Mapping[str, float]] = {}
    """The periodic tasks by name: how often each runs, as a multiple of the shortest interval."""
    subcommands: ClassVar[tuple[str, ...]] = ()
    """The modules of `subcommands_package` that add a subcommand to `phi_oidc`."""
    subcommands_package: ClassVar[str] = "subcommands"
    nested_subcommands: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """The modules of `subcommands_package` whose `add_subcommands` extends a subcommand of
    `phi_oidc`, by the name of that subcommand.
    """

    link_sources: ClassVar[tuple[str, ...]] = ()
    """The modules of `subcommands_package` whose `add_source` adds an option of
    `phi_oidc subject link` that selects the persons to link.
    """

    def __init__(self, app_name: str, app_module: Any) -> None:
        # Django creates all configurations before it imports models and calls ready(), so options
        # can be read from there on.
        super().__init__(app_name, app_module)
        if self.options is not None:
            sections.register_section(self.name, self.options)
        if self.group_members is not None:
            sections.register_group_members(*self.group_members)
        if self.provider_option is not None:
            sections.register_provider_option(*self.provider_option)

    def ready(self) -> None:
        # Its rule codes: see `errors.list_codes`.
        self.find_module("errors")

    def find_module(self, name: str) -> ModuleType | None:
        """Import and return a module of the app; None if the app has no such module."""
        if self.module is None or not module_has_submodule(self.module, name):
            return None
        return import_module(f"{self.name}.{name}")

    def import_subcommands(self) -> Iterator[tuple[str, ModuleType]]:
        """Yield the name and the module of each subcommand that the app adds to `phi_oidc`."""
        for name in self.subcommands:
            module = import_module(f"{self.name}.{self.subcommands_package}.{name}")
            yield name.replace("_", "-"), module

    def import_nested_subcommands(self, parent: str) -> Iterator[ModuleType]:
        """Yield each module that extends the subcommand parent."""
        for name in self.nested_subcommands.get(parent, ()):
            yield import_module(f"{self.name}.{self.subcommands_package}.{name}")

    def import_link_sources(self) -> Iterator[ModuleType]:
        """Yield each module that adds a source of people to `phi_oidc subject link`."""
        for name in self.link_sources:
            yield import_module(f"{self.name}.{self.subcommands_package}.{name}")


def list_installed_features() -> list[FeatureConfig]:
    """Return the apps of this package that are installed, in the order of INSTALLED_APPS."""
    installed_features = []
    for config in apps.get_app_configs():
        if isinstance(config, FeatureConfig):
            installed_features.append(config)
    return installed_features


def add_nested_subcommands(parent: str, commands: Any) -> None:
    """Extend the subcommand parent of `phi_oidc` by what the installed apps add to it.

    commands: its subparsers. An app adds subcommands, or options to those that are there.
    """
    for config in list_installed_features():
        for module in config.import_nested_subcommands(parent):
            module.add_subcommands(commands)


def create_features(installed_apps: Iterable[str]) -> Iterator[FeatureConfig]:
    """Yield the apps of this package among installed_apps, before Django has set them up."""
    for entry in installed_apps:
        if entry == "django_phi_oidc" or entry.startswith("django_phi_oidc."):
            config = AppConfig.create(entry)
            if isinstance(config, FeatureConfig):
                yield config
