"""The sections of `PHI_OIDC`: each app declares its own options. No Django.

A section is a frozen dataclass whose fields are top-level options of the setting. An option whose
type is a dataclass is a group, such as KEYS: its members can be read one by one. An app may also
add members to a group, and one option to the dictionary of a provider.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast, get_type_hints

from ..errors import DeclarationInvalid
from .option_parsers import (
    Parser,
    get_parsers,
    list_unknown_options,
    parse_declaration,
    parse_each,
    parse_mapping,
    parse_option,
)

if TYPE_CHECKING:
    from .providers import ProviderDeclaration

_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Section:
    """The options of one app."""

    app: str
    """Its dotted name, as in INSTALLED_APPS."""
    options: type
    """A frozen dataclass."""


class ProviderOption:
    """An option that an app adds to the dictionary of a provider: the base of its dataclass."""

    __slots__ = ()

    @classmethod
    def parse(cls, path: str, value: Any) -> Self:
        """Return the option that value declares, by default a dictionary. path: of the option.

        Raises: DeclarationInvalid.
        """
        return parse_declaration(cls, path, value)

    def list_faults(self, provider: "ProviderDeclaration") -> Iterator[str]:
        """Yield mistakes that involve other options of the provider, as text that follows its
        path.
        """
        yield from ()


_group_members: dict[str, dict[str, type]] = {}
"""By the name of a group: the members that installed apps add to it, each with the dataclass that
declares it.
"""
_provider_options: dict[str, type[ProviderOption]] = {}
"""The options that installed apps add to the dictionary of a provider, by name."""
_sections: dict[str, Section] = {}
"""The sections of the installed apps, by the name of the app, in the order of INSTALLED_APPS."""


def register_section(app: str, options: type) -> None:
    """Add the options of an app. Raises: ValueError if another app has one of these options."""
    for name in get_parsers(options):
        section = _find_section(name)
        if section is not None and section.app != app:
            raise ValueError(f"{app} and {section.app} both declare the option {name}.")

    _sections[app] = Section(app, options)


def register_group_members(group: str, declaration_class: type) -> None:
    """Add the fields of a frozen dataclass to a group. Raises: ValueError if another class has one
    of them.
    """
    members = _group_members.setdefault(group, {})
    for name in get_parsers(declaration_class):
        if members.setdefault(name, declaration_class) is not declaration_class:
            raise ValueError(f"Two apps add the member {name} to {group}.")


def get_group_members(group: str) -> Mapping[str, type]:
    """Return the members that installed apps add to the group, each with the dataclass that
    declares it.
    """
    return _group_members.get(group, {})


def register_provider_option(name: str, declaration_class: type[ProviderOption]) -> None:
    """Add an option to the dictionaries of providers. Raises: ValueError if another class has the
    name.
    """
    if _provider_options.setdefault(name, declaration_class) is not declaration_class:
        raise ValueError(f"Two apps add the option {name} to a provider.")


def get_provider_options() -> Mapping[str, type[ProviderOption]]:
    """Return the options that installed apps add to the dictionary of a provider, by name."""
    return _provider_options


def iter_sections() -> Iterator[Section]:
    yield from _sections.values()


def parse_one(raw: Mapping[str, Any], option: str, member: str = "") -> Any:
    """Return one option, or one member of a group. Mistakes in other options are ignored.

    Raises: DeclarationInvalid. LookupError if no installed app has the option or the member.
    """
    section = _find_section(option)
    if section is None:
        raise LookupError(f"No installed app declares the option {option}.")
    if not member:
        return parse_option(section.options, "", raw, option)

    group = get_type_hints(section.options)[option]
    if not is_dataclass(group):
        raise LookupError(f"The option {option} is no group.")
    declaration_class = get_group_members(option).get(member, cast(type, group))
    if member not in get_parsers(declaration_class):
        raise LookupError(f"No installed app declares the member {member} of {option}.")
    return parse_option(declaration_class, option, raw.get(option, {}), member)


def list_unknown(raw: Mapping[str, Any]) -> list[str]:
    """Return a message for each option that does not exist."""
    known = []
    for section in iter_sections():
        for name in get_parsers(section.options):
            known.append(name)
    return list_unknown_options("", raw, known, find_app=find_app_of_option)


def list_mistakes(raw: Mapping[str, Any]) -> list[str]:
    """Return a message for each mistake in the options that exist."""
    parsers: dict[str, Parser] = {}
    for section in iter_sections():
        parsers.update(get_parsers(section.options))
        for name, hint in get_type_hints(section.options, include_extras=True).items():
            if is_dataclass(hint):
                parsers[name] = partial(_check_group, cast(type, hint))

    declared = [(name, raw[name]) for name in parsers if name in raw]
    try:
        parse_each(lambda name, value: parsers[name](name, value), declared)
    except DeclarationInvalid as error:
        return str(error).split("\n")
    return []


def find_app_of_option(name: str) -> str | None:
    """Return the app of this package that declares a top-level option, installed or not."""
    for config in iter_app_configs():
        if config.options is not None and name in get_parsers(config.options):
            return str(config.name)
    return None


def find_app_of_group_member(group: str, name: str) -> str | None:
    """Return the app of this package that adds a member to a group, installed or not."""
    for config in iter_app_configs():
        if config.group_members is not None:
            other_group, declaration_class = config.group_members
            if group == other_group and name in get_parsers(declaration_class):
                return str(config.name)
    return None


def find_app_of_provider_option(name: str) -> str | None:
    """Return the app of this package that adds an option to a provider, installed or not."""
    for config in iter_app_configs():
        if config.provider_option is not None and name == config.provider_option[0]:
            return str(config.name)
    return None


def iter_app_configs() -> Iterator[Any]:
    """Yield the configuration class of each app of this package.

    They are imported here, and not with this module, because they import Django.
    """
    folders = [_PACKAGE / "audit", *sorted((_PACKAGE / "contrib").iterdir())]
    for folder in folders:
        if (folder / "apps.py").exists():
            app = ".".join([_PACKAGE.name, *folder.relative_to(_PACKAGE).parts])
            for value in vars(import_module(f"{app}.apps")).values():
                if isinstance(value, type) and getattr(value, "name", None) == app:
                    yield value


def _check_group(declaration_class: type, group: str, raw: Any) -> None:
    """Parse the members of a group, also those that apps add. Raises: DeclarationInvalid with all
    mistakes.
    """
    declared = parse_mapping(group, raw)
    added = get_group_members(group)
    mistakes = []
    try:
        parse_declaration(
            declaration_class,
            group,
            declared,
            known={*get_parsers(declaration_class), *added},
            find_app=partial(find_app_of_group_member, group),
        )
    except DeclarationInvalid as error:
        mistakes.append(str(error))

    for name in added:
        try:
            parse_option(added[name], group, declared, name)
        except DeclarationInvalid as error:
            mistakes.append(str(error))
    if mistakes:
        raise DeclarationInvalid("\n".join(mistakes))


def _find_section(option: str) -> Section | None:
    for section in iter_sections():
        if option in get_parsers(section.options):
            return section
    return None
