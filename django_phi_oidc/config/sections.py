"""The sections of `PHI_OIDC`: each app declares its own options. No Django.

A section is a frozen dataclass whose fields are top-level options of the setting. An option whose
type is a dataclass is a group, such as KEYS: its members can be read one by one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any, cast, get_type_hints

from ..errors import DeclarationInvalid
from ._parsing import Parser, get_parsers, list_unknown_options, parse_each, parse_option


@dataclass(frozen=True, slots=True)
class Section:
    """The options of one app."""

    app: str
    """Its dotted name, as in INSTALLED_APPS."""
    options: type
    """A frozen dataclass."""


_sections: dict[str, Section] = {}
"""The sections of the installed apps, by the name of the app, in the order of INSTALLED_APPS."""


def register_section(app: str, options: type) -> None:
    """Add the options of an app. Raises: ValueError if another app has one of these options."""
    for name in get_parsers(options):
        section = _find_section(name)
        if section is not None and section.app != app:
            raise ValueError(f"{app} and {section.app} both declare the option {name}.")

    _sections[app] = Section(app, options)


def iter_sections() -> Iterator[Section]:
    yield from _sections.values()


def parse_one(raw: Mapping[str, Any], option: str, member: str = "") -> Any:
    """Return one option, or one member of a group: mistakes elsewhere do not matter.

    Raises: DeclarationInvalid. LookupError if no installed app has the option.
    """
    section = _find_section(option)
    if section is None:
        raise LookupError(f"No installed app declares the option {option}.")
    if not member:
        return parse_option(section.options, "", raw, option)

    group = get_type_hints(section.options)[option]
    if not is_dataclass(group):
        raise LookupError(f"The option {option} is no group.")
    return parse_option(cast(type, group), option, raw.get(option, {}), member)


def list_unknown(raw: Mapping[str, Any]) -> list[str]:
    """Return a message for each option that does not exist."""
    known = [name for section in iter_sections() for name in get_parsers(section.options)]
    return list_unknown_options("", raw, known)


def list_mistakes(raw: Mapping[str, Any]) -> list[str]:
    """Return a message for each mistake in the options that exist."""
    parsers: dict[str, Parser] = {}
    for section in iter_sections():
        parsers.update(get_parsers(section.options))

    declared = [(name, raw[name]) for name in parsers if name in raw]
    try:
        parse_each(lambda name, value: parsers[name](name, value), declared)
    except DeclarationInvalid as error:
        return str(error).split("\n")
    return []


def _find_section(option: str) -> Section | None:
    for section in iter_sections():
        if option in get_parsers(section.options):
            return section
    return None
