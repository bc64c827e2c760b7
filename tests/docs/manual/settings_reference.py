"""The tables of docs/reference/settings.md, generated from the text below each option in the code: `make reference`."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields
from datetime import timedelta
from inspect import getsource
from itertools import pairwise
from pkgutil import resolve_name
from typing import Any

from django_phi_oidc.config.option_grades import OptionGrade, find_grade
from tests.support.manual_blocks import PAGES

TABLE = re.compile(
    r"(?P<head><!-- `make reference` writes this table, of (?P<paths>[\w., ]+) -->\n).*?(?P<foot>\n<!-- end -->)",
    re.DOTALL,
)
HEAD = "| option | grade | meaning | default |\n|---|---|---|---|"
HEAD_OF_APPS = "| option | app | grade | meaning | default |\n|---|---|---|---|---|"
GRADES = tuple(OptionGrade)
NO_OPTIONS = {"app_options", "name", "provider"}
"""Fields for the name of a declaration, and for the options that apps add, are not options."""
UNITS = {"day": 86_400, "hour": 3_600, "minute": 60, "second": 1}


def regenerate(page: str) -> str:
    """Return the page with new tables. Raises: ValueError, which names an option without a text or a grade."""
    return TABLE.sub(lambda hit: hit["head"] + "\n".join(build_table(hit["paths"])) + hit["foot"], page)


def build_table(paths: str) -> Iterator[str]:
    """Yield the lines of a table. paths: of one class, or of a class of each app, which then has a column."""
    kinds = find_classes(paths)
    if len(kinds) == 1:
        yield HEAD
        yield from build_rows(*kinds.values())
        return
    yield HEAD_OF_APPS
    for path, kind in kinds.items():
        app = path.split(".")[-3]
        for row in build_rows(kind):
            yield re.sub(r"^(\| `\w+` \|)", rf"\1 `{app}` |", row)


def find_classes(paths: str) -> dict[str, type]:
    """Return the classes by their paths."""
    return {path: resolve_name(path) for path in paths.split(", ")}


def build_rows(kind: type) -> Iterator[str]:
    """Yield the rows of the options: by grade, and within a grade in the order of the code."""
    texts = read_texts(kind)
    grades = read_grades(kind)
    for option in sorted(list_options(kind), key=lambda option: GRADES.index(grades[option.name])):
        default = read_default(option)
        meaning, _, explanation = texts.get(option.name, "").partition("Default: ")
        if not meaning or (explanation and format_default(default)):
            raise ValueError(
                f"{kind.__name__}.{option.name} needs a meaning, and no explanation of a default that can be shown."
            )
        cells = (
            f"`{option.name}`",
            grades[option.name].value,
            meaning.strip().removesuffix("."),
            format_default(default) or explanation.removesuffix(".") or "none",
        )
        yield "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def list_options(kind: type) -> list[Field[Any]]:
    return [option for option in fields(kind) if option.name not in NO_OPTIONS]


def read_grades(kind: type) -> Mapping[str, OptionGrade]:
    """Return the grade of each option. Raises: ValueError, which names an option without a grade."""
    grades = {}
    for option in list_options(kind):
        grade = find_grade(option)
        if grade is None:
            raise ValueError(f"{kind.__name__}.{option.name} needs a grade: field(metadata=LATER), or another one.")
        grades[option.name] = grade
    return grades


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


def read_default(option: Field[Any]) -> Any:
    """Return the default of an option; MISSING where it must be given."""
    if option.default_factory is MISSING:
        return option.default
    return option.default_factory()


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
