"""The tables of docs/reference/settings.md, generated from the text below each option in the code: `make reference`."""

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
NO_OPTIONS = {"app_options", "name", "provider"}
"""Fields for the name of a declaration, and for the options that apps add, are not options."""
UNITS = {"day": 86_400, "hour": 3_600, "minute": 60, "second": 1}


def regenerate(page: str) -> str:
    """Return the page with new tables. Raises: ValueError, which names an option without a text."""
    return TABLE.sub(lambda hit: hit["head"] + "\n".join(build_rows(find_class(hit["path"]))) + hit["foot"], page)


def find_class(path: str) -> type:
    module, _, name = path.rpartition(".")
    declaration: type = getattr(import_module(module), name)
    return declaration


def build_rows(kind: type) -> Iterator[str]:
    """Yield the lines of the table, in the order of the code."""
    yield HEAD
    texts = read_texts(kind)
    for name, default in read_defaults(kind).items():
        meaning, _, explanation = texts.get(name, "").partition("Default: ")
        if not meaning or (explanation and format_default(default)):
            raise ValueError(
                f"{kind.__name__}.{name} needs a meaning, and no explanation of a default that can be shown."
            )
        cells = (
            f"`{name}`",
            meaning.strip().removesuffix("."),
            format_default(default) or explanation.removesuffix(".") or "none",
        )
        yield "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def read_texts(kind: type) -> Mapping[str, str]:
    """Return the text below each field, in one line."""
    (tree,) = ast.parse(getsource(kind)).body
    assert isinstance(tree, ast.ClassDef)
    texts = {}
    for field, below in pairwise(tree.body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = " ".join(text.split())
    return texts


def read_defaults(kind: type) -> Mapping[str, Any]:
    """Return the default of each option; MISSING where it must be given."""
    if not is_dataclass(kind):
        return {name: getattr(kind, name) for name in get_annotations(kind)}
    return {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(kind)
        if field.name not in NO_OPTIONS
    }


def format_default(default: Any) -> str:
    """Return a default as text; an empty string for an empty default, which needs an explanation."""
    match default:
        case bool():
            return "on" if default else "off"
        case timedelta():
            return format_duration(default)
        case str() | tuple() if default:
            return ", ".join(f"`{item}`" for item in ((default,) if isinstance(default, str) else default))
        case int():
            return str(default)
        case _:
            return "required" if default is MISSING else ""


def format_duration(length: timedelta) -> str:
    """Return a duration in its largest whole unit, such as "15 minutes"."""
    seconds = int(length.total_seconds())
    unit, size = next((unit, size) for unit, size in UNITS.items() if seconds % size == 0)
    return f"{seconds // size} {unit}{'' if seconds == size else 's'}"


if __name__ == "__main__":
    PAGES["settings"].write_text(regenerate(PAGES["settings"].read_text()))
