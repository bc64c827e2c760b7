"""Settings as lines of Python, with environment variables in place of secrets. No Django."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LINE_LENGTH = 120
UNPACKED = "**"
"""The key of a call whose result, a dictionary, is unpacked."""
_INDENT = 4


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function of `project_settings`, which reads the environment."""

    code: str

    def __str__(self) -> str:
        return self.code


@dataclass(frozen=True, slots=True)
class EnvironmentVariable:
    """A value that is read from the environment by `project_settings.read_variable`, such as a
    secret.
    """

    name: str

    def __str__(self) -> str:
        return f'read_variable("{self.name}")'


def format_python(value: Any, *, indent: int = 0, prefix: str = "") -> str:
    """Return value as a Python expression: on one line if that fits after indent and prefix,
    otherwise indented.

    Values are texts, numbers, None, lists, dictionaries, calls and environment variables.
    """
    if not isinstance(value, Mapping):
        return _format_scalar(value)
    on_one_line = (
        f"{{{', '.join(_format_key(key) + format_python(item) for key, item in value.items())}}}"
    )
    if "\n" not in on_one_line and indent + len(prefix) + len(on_one_line) < LINE_LENGTH:
        return on_one_line
    inner = indent + _INDENT
    lines = []
    for key, item in value.items():
        start = _format_key(key)
        lines.append(f"{' ' * inner}{start}{format_python(item, indent=inner, prefix=start)},\n")
    return f"{{\n{''.join(lines)}{' ' * indent}}}"


def _format_key(key: Any) -> str:
    if key == UNPACKED:
        return UNPACKED
    return f"{_format_scalar(key)}: "


def _format_scalar(value: Any) -> str:
    if isinstance(value, str):
        # Control characters of a setting must not reach a terminal.
        return json.dumps(value, ensure_ascii=not value.isprintable())
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_format_scalar, value))}]"
    return str(value)
