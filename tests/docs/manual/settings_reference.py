"""The tables of docs/reference/settings.md, made of what stands below each option in the code: `make reference`."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import timedelta
from importlib import import_module
from inspect import get_annotations, getsource
from itertools import pairwise
from typing import Any

from tests.support.manual_blocks import PAGES

TABLE = re.compile(
    r"(?P<head><!-- `make reference` writes this table, of (?P<path>[\w.]+) -->\n).*?(?P<foot>\n<!-- end -->)",
    re.DOTALL,
)
HEAD = "| option | meaning | default |\n|---|---|---|"
KEYS = {"name", "provider"}
"""The key under which a thing is declared is no option of it."""
UNITS = {"day": 86_400, "hour": 3_600, "minute": 60, "second": 1}


def written(page: str) -> str:
    """Return the page with every table as the code has it. Raises: ValueError, which names an option that is untold."""
    return TABLE.sub(lambda hit: hit["head"] + "\n".join(rows(named(hit["path"]))) + hit["foot"], page)


def named(path: str) -> type:
    module, _, name = path.rpartition(".")
    found: type = getattr(import_module(module), name)
    return found


def rows(kind: type) -> Iterator[str]:
    """Give the table's lines, in the order of the code."""
    yield HEAD
    texts = meanings(kind)
    for name, default in defaults(kind).items():
        meaning, _, words = texts.get(name, "").partition("Default: ")
        if not meaning or (words and shown(default)):
            raise ValueError(f"{kind.__name__}.{name} needs a meaning, and no words for a default that can be shown.")
        cells = f"`{name}`", meaning.strip().removesuffix("."), shown(default) or words.removesuffix(".") or "none"
        yield "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def meanings(kind: type) -> Mapping[str, str]:
    """Return what stands below each field, in one line."""
    (tree,) = ast.parse(getsource(kind)).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, below in pairwise(tree.body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split())
    return found


def defaults(kind: type) -> Mapping[str, Any]:
    """Return the default of each option; MISSING where it must be given."""
    if not is_dataclass(kind):
        return {name: getattr(kind, name) for name in get_annotations(kind)}
    return {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(kind)
        if field.name not in KEYS
    }


def shown(default: Any) -> str:
    """Return a default as people read it; nothing for an empty one, whose meaning its words tell."""
    match default:
        case bool():
            return "on" if default else "off"
        case timedelta():
            return duration(default)
        case str() | tuple() if default:
            return ", ".join(f"`{each}`" for each in ((default,) if isinstance(default, str) else default))
        case int():
            return str(default)
        case _:
            return "required" if default is MISSING else ""


def duration(length: timedelta) -> str:
    """Return a length of time in the longest unit that goes into it, as in "15 minutes"."""
    seconds = int(length.total_seconds())
    unit, size = next((unit, size) for unit, size in UNITS.items() if seconds % size == 0)
    return f"{seconds // size} {unit}{'' if seconds == size else 's'}"


if __name__ == "__main__":
    PAGES["settings"].write_text(written(PAGES["settings"].read_text()))
