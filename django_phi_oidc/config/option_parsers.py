"""Parse the dictionary of a setting into a frozen dataclass, driven by the types of its fields. No
Django.

A field annotated `Annotated[type, parser]` has a parser of its own. All mistakes are reported at
once, one a line; a message names options, never values.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import date, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache, partial
from pathlib import Path
from types import NoneType
from typing import (
    Annotated,
    Any,
    Literal,
    NoReturn,
    TypeVar,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)
from urllib.parse import urlsplit

from ..errors import DeclarationInvalid
from .loopback import is_loopback_http

T = TypeVar("T")
Parser = Callable[[str, Any], Any]
"""From the path of an option and its raw value to the parsed value. Raises: DeclarationInvalid."""
ADD_APP = "Add it to INSTALLED_APPS."
"""The end of the message about an option of an app that is not installed."""
_NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_EMAIL_ADDRESS_PATTERN = re.compile(r"[^@\s,<>]+@[^@\s,<>]+")


def fail(path: str, message: str) -> NoReturn:
    raise DeclarationInvalid(f"{path} {message}.")


def parse_declaration(
    declaration_class: type[T],
    path: str,
    raw: Any,
    *,
    known: Collection[str] | None = None,
    find_app: Callable[[str], str | None] = lambda name: None,
    list_faults: Callable[[T], Iterable[str]] = lambda declaration: (),
    **identity: Any,
) -> T:
    """Return an instance of declaration_class, a dataclass, from the options in raw.

    path: of the declaration in the setting; empty for the setting itself. known: the options that
    are allowed here, if not those of declaration_class. find_app: returns the app that would
    declare an unknown option. list_faults: yields mistakes that involve several options, as text
    that follows the path. identity: fields that are not options.

    Raises: DeclarationInvalid with all mistakes.
    """
    parsers = get_parsers(cast(type, declaration_class))
    parsers = {name: parser for name, parser in parsers.items() if name not in identity}
    known = parsers if known is None else known
    mistakes = list_unknown_options(path, parse_mapping(path, raw), known, find_app=find_app)
    required = set()
    for f in fields(cast(Any, declaration_class)):
        if f.default is f.default_factory is MISSING:
            required.add(f.name)
    mistakes += [
        f"{path} lacks {name}." for name in parsers if name in required and name not in raw
    ]
    try:
        options = [(name, raw[name]) for name in raw if name in known and name in parsers]
        values = parse_each(
            lambda name, value: parsers[name](join_path(path, name), value), options
        )
        if required <= {*values, *identity}:
            declaration = declaration_class(**identity, **values)
            for fault in list_faults(declaration):
                mistakes.append(f"{path}{fault}")
    except DeclarationInvalid as error:
        mistakes.append(str(error))
    if mistakes:
        raise DeclarationInvalid("\n".join(mistakes))
    return declaration


def parse_option(declaration_class: type, path: str, raw: Any, name: str) -> Any:
    """Return one option alone, or its default: mistakes in the others do not matter. Raises:
    DeclarationInvalid.
    """
    if name in parse_mapping(path, raw):
        return get_parsers(declaration_class)[name](join_path(path, name), raw[name])
    (field,) = (field for field in fields(declaration_class) if field.name == name)
    if field.default_factory is MISSING:
        return field.default
    return field.default_factory()


def parse_each(parse: Callable[[Any, Any], T], items: Iterable[tuple[Any, Any]]) -> dict[Any, T]:
    """Return parse(key, raw) by key. Raises: DeclarationInvalid with the mistakes of all items."""
    parsed = {}
    mistakes = []
    for key, raw in items:
        try:
            parsed[key] = parse(key, raw)
        except DeclarationInvalid as error:
            mistakes.append(str(error))
    if mistakes:
        raise DeclarationInvalid("\n".join(mistakes))
    return parsed


def mapping_of(parse: Callable[[Any, Any], T]) -> Callable[[str, Any], Mapping[str, T]]:
    """Return a parser of a dictionary whose items are parsed by parse(name, raw)."""
    return lambda path, raw: parse_each(parse, parse_mapping(path, raw).items())


def list_unknown_options(
    path: str,
    raw: Mapping[Any, Any],
    known: Collection[str],
    *,
    find_app: Callable[[str], str | None] = lambda name: None,
) -> list[str]:
    """Return a message for each option of raw that does not exist, with the app that would declare
    it, or the nearest one that exists.
    """
    if path:
        prefix = f"{path}: "
    else:
        prefix = ""

    messages = []
    for name in sorted(ascii(name)[:66].strip("'") for name in raw if name not in known):
        app = find_app(name)
        if app is not None:
            messages.append(f"{prefix}{name} is an option of {app}. {ADD_APP}")
            continue
        nearest = get_close_matches(name.lower(), [option.lower() for option in known], n=1)
        hint = next(
            (f"; did you mean {option}?" for option in known if nearest == [option.lower()]), "."
        )
        messages.append(f"{prefix}no option {name}{hint}")
    return messages


def join_path(path: str, name: str) -> str:
    """Return the path of an option: top-level options stand alone."""
    if path:
        return f"{path}[{name!r}]"
    return name


def parse_mapping(path: str, value: Any) -> Mapping[Any, Any]:
    if isinstance(value, Mapping):
        return value
    return fail(path or "The setting", "must be a dictionary")


def parse_name(path: str, name: Any) -> str:
    """Return the name of a declaration that appears in URLs or in rows of the database."""
    if not isinstance(name, str) or not _NAME_PATTERN.fullmatch(name):
        fail(path, "is no name: 1 to 64 letters and digits, and . _ - after the first")
    return name


def parse_printable(path: str, value: Any, *, max_length: int = 255) -> str:
    """Return a string of 1 to max_length printable characters, for example the name of a claim."""
    if not isinstance(value, str) or not 0 < len(value) <= max_length or not value.isprintable():
        fail(path, f"is no name: 1 to {max_length} printable characters")
    return value


def parse_string(path: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    return fail(path, "must be a string")


def parse_strings(
    path: str, value: Any, *, item_type: Any = str, items: str = "strings"
) -> tuple[Any, ...]:
    """Return a list of non-empty items as a tuple. A bare string is iterable too, so it is refused
    explicitly.
    """
    if not isinstance(value, list | tuple) or not all(
        isinstance(item, item_type) and item != "" for item in value
    ):
        fail(path, f"must be a list of {items}")
    return tuple(value)


def parse_choices(path: str, value: Any, *, choices: Sequence[str]) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or any(item not in choices for item in value):
        fail(path, f"must be a list of: {', '.join(choices)}")
    return tuple(dict.fromkeys(value))


def parse_duration(
    path: str,
    value: Any,
    *,
    minimum: timedelta = timedelta.resolution,
    maximum: timedelta | None = None,
) -> timedelta:
    """Return a timedelta from one, or from a number of seconds, as JSON has it."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            value = timedelta(seconds=value)
        except (ValueError, OverflowError):  # NaN, or more than a timedelta holds
            value = None
    if (
        not isinstance(value, timedelta)
        or value < minimum
        or (maximum is not None and value > maximum)
    ):
        if minimum == timedelta.resolution:
            positive = "positive "
        else:
            positive = ""

        if maximum:
            bounds = f", {'' if positive else f'from {minimum} '}to {maximum}"
        else:
            bounds = ""

        fail(path, f"must be a {positive}timedelta or number of seconds{bounds}")
    return value


def parse_date(path: str, value: Any) -> date:
    """Return a date from one, or from an ISO 8601 text such as 2026-12-31."""
    if isinstance(value, str):
        try:
            value = date.fromisoformat(value)
        except ValueError:
            value = None
    if not isinstance(value, date) or isinstance(value, datetime):
        fail(path, "must be a date such as 2026-12-31")
    return value


def parse_absolute_path(path: str, value: Any) -> Path:
    if not isinstance(value, str | Path) or not Path(value).is_absolute():
        fail(path, "must be an absolute path")
    return Path(value)


def parse_raw(path: str, value: Any) -> Any:
    return value


def checked(parse: Parser, is_valid: Callable[[Any], Any], message: str) -> Parser:
    """Return parse with a condition on the parsed value."""

    def parse_checked(path: str, value: Any) -> Any:
        parsed = parse(path, value)
        if is_valid(parsed):
            return parsed
        return fail(path, message)

    return parse_checked


parse_nonempty = checked(parse_string, bool, "is empty")
parse_dotted_path = checked(parse_string, lambda path: "." in path, "must be a dotted path")
parse_email_addresses = checked(
    partial(parse_strings, items="mail addresses"),
    lambda addresses: all(map(_EMAIL_ADDRESS_PATTERN.fullmatch, addresses)),
    "must be a list of mail addresses such as privacy@example.org",
)


def is_url(url: str, *, forbidden: str) -> bool:
    """Say whether url is http or https with a host, in ASCII. urlsplit drops characters that string
    comparison sees.
    """
    if not url.isascii() or not url.isprintable() or set(forbidden).intersection(url):
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def is_secure_url(url: str, *, forbidden: str = " #@") -> bool:
    """Say whether url is one of `is_url` with https, or with http on a loopback address."""
    if not is_url(url, forbidden=forbidden):
        return False
    return urlsplit(url).scheme == "https" or is_loopback_http(url)


@lru_cache(maxsize=64)
def get_parsers(declaration_class: type) -> Mapping[str, Parser]:
    """Return the parser of each field of a dataclass."""
    hints = get_type_hints(declaration_class, include_extras=True)
    parsers = {}
    for field in fields(declaration_class):
        parsers[field.name] = _get_parser(hints[field.name])
    return parsers


def _get_parser(hint: Any) -> Parser:
    if get_origin(hint) is Annotated:
        return cast(Parser, get_args(hint)[1])
    if get_origin(hint) is Literal:
        return partial(_parse_choice, choices=get_args(hint))
    if NoneType in get_args(hint):
        (hint,) = (argument for argument in get_args(hint) if argument is not NoneType)
        parse = _get_parser(hint)
        return lambda path, value: None if value is None else parse(path, value)
    if is_dataclass(hint):
        return partial(parse_declaration, cast(type, hint))
    return _PARSERS[hint]


def _parse_choice(path: str, value: Any, *, choices: Sequence[str]) -> Any:
    if isinstance(value, str) and value in choices:
        return value
    return fail(path, f"must be one of {', '.join(choices)}")


def parse_bool(path: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return fail(path, "must be True or False")


_PARSERS: Mapping[Any, Parser] = {
    str: parse_string,
    bool: parse_bool,
    date: parse_date,
    timedelta: parse_duration,
    Path: parse_absolute_path,
    tuple[str, ...]: parse_strings,
}
