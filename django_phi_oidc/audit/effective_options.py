"""The options of `PHI_OIDC` in effect, with their defaults, and without secrets. No Django."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

from ..config.sections import iter_sections, parse_one
from ..errors import DeclarationInvalid

INVALID = "invalid"
_URL_OPTIONS = frozenset({"url", "proxy"})
"""They may contain a password or a token: only scheme, host and port are listed."""


def iter_effective_options(raw: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of each option but KEYS, such as `SESSIONS.idle_timeout`.

    Secrets are left out: fields of a declaration that its repr does not show. The value of an
    option that cannot be parsed is INVALID.
    """
    names = []
    for section in iter_sections():
        for field in fields(section.options):
            names.append(field.name)
    for name in names:
        if name != "KEYS":
            try:
                value = parse_one(raw, name)
            except DeclarationInvalid:
                value = INVALID
            yield from _flatten(name, value)


def describe_value(value: Any) -> str:
    """Return a text that is equal in all processes for equal values, and different for different
    ones.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return repr(value)
    if isinstance(value, frozenset | set):
        return f"{{{', '.join(sorted(map(describe_value, value)))}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(describe_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key!r}: {describe_value(value[key])}' for key in sorted(value, key=str))}}}"  # noqa: E501
    if isinstance(value, PurePath | date | timedelta | IPv4Network | IPv6Network):
        return str(value)
    # The name: the text of a function or of a key store may contain its address in memory.
    if hasattr(value, "__qualname__"):
        named = value
    else:
        named = type(value)

    return f"{named.__module__}.{named.__qualname__}"


def _reduce_url(url: str) -> str:
    """Return scheme, host and port; INVALID if the URL cannot be parsed, because then a password
    may be anywhere.
    """
    try:
        parts = urlsplit(url)
        if parts.port:
            port = f":{parts.port}"
        else:
            port = ""
    except ValueError:
        return INVALID
    if not parts.hostname or "@" in f"{parts.path}{parts.query}{parts.fragment}":
        return INVALID
    return f"{parts.scheme}://{parts.hostname}{port}"


def _flatten(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            member = getattr(value, field.name)
            if field.name in _URL_OPTIONS:
                yield f"{path}.{field.name}", _reduce_url(member) if member else ""
            elif field.name == "app_options":
                for name, option in member:
                    yield from _flatten(f"{path}.{name}", option)
            elif field.repr and field.compare:
                yield from _flatten(f"{path}.{field.name}", member)
    elif isinstance(value, Mapping):
        for name in sorted(value):
            yield from _flatten(f"{path}.{name}", value[name])
    elif isinstance(value, tuple) and any(map(is_dataclass, value)):
        for number, item in enumerate(value):
            yield from _flatten(f"{path}.{number}", item)
    else:
        yield path, value
