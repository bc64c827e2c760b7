"""The sections of docs/reference/python.md, generated from the signatures and docstrings in the code: `make reference`.

A comment above each section lists what it shows: `path`, `path: *` for a class with its documented public members, or
`path: name, name` for a class with these members.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from importlib import import_module
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

import django

from tests.support.manual_blocks import PAGES

SECTION = re.compile(
    r"(?P<head><!-- `make reference` writes this section, of:\n(?P<listed>.*?)-->\n).*?(?P<foot><!-- end -->)",
    re.DOTALL,
)
LABEL = re.compile(r"(?:^|(?<=\.\n)|(?<=\. ))(Raises|Requires|Spec|NOT \w+): ", re.MULTILINE)
TABLE = re.compile(r"^=+ [= ]+\n.*^=+ [= ]+$", re.MULTILINE | re.DOTALL)
WIDTH = 90
Function = ast.FunctionDef | ast.AsyncFunctionDef


def regenerate(page: str) -> str:
    """Return the page with new sections."""
    return SECTION.sub(lambda hit: hit["head"] + "\n" + "\n".join(render_section(hit["listed"])) + hit["foot"], page)


def list_entries(page: str) -> dict[str, str]:
    """Return the members to show of each listed path."""
    lines = "".join(hit["listed"] for hit in SECTION.finditer(page)).splitlines()
    return {path: members.strip() for path, _, members in (line.partition(":") for line in lines)}


def render_section(listed: str) -> Iterator[str]:
    for line in listed.splitlines():
        path, _, members = line.partition(":")
        yield from render_entry(path, resolve_name(path), members.strip())


def render_entry(path: str, found: Any, members: str) -> Iterator[str]:
    """Yield the lines of one object: heading, signature, docstring, members."""
    module, _, name = path.rpartition(".")
    yield f"### {path if isinstance(found, ModuleType) else name}\n"
    if isinstance(found, ModuleType):
        yield convert_docstring(inspect.getdoc(found) or "") + "\n"
        return
    if not callable(found):
        assignment, text = find_documented_values(ast.parse(inspect.getsource(import_module(module))))[name]
        yield f"In `{module}`" + (f":\n\n    {assignment}\n" if len(assignment) <= WIDTH else ".\n")
        yield convert_docstring(text) + "\n"
        return
    yield f"In `{module}`:\n"
    yield textwrap.indent(format_signature(name, found), "    ") + "\n"
    yield convert_docstring(inspect.getdoc(found) or "") + "\n"
    # A class for one step of a sign-in has the code of the rule only in its instances.
    if isinstance(found, type) and issubclass(found, Exception) and hasattr(found, "code"):
        yield f"**Code:** `{found.code}`\n"
    bullets = list(render_members(found, members)) if members else []
    yield from [*bullets, ""] if bullets else []


def render_members(found: type, members: str) -> Iterator[str]:
    documented = read_members(found)
    names = list(read_members(found, inherited=False)) if members == "*" else members.split(", ")
    for name in names:
        signature, text = documented[name]
        yield "- " + textwrap.indent(f"`{signature}`: {convert_docstring(text)}", "  ")[2:]


def read_members(found: type, *, inherited: bool = True) -> dict[str, tuple[str, str]]:
    """Return signature and text of each public member that has a text, in the order of the code."""
    members: dict[str, tuple[str, str]] = {}
    for base in reversed(found.__mro__) if inherited else [found]:
        if base.__module__ not in {"builtins", "typing"}:
            tree = parse_class(base)
            members |= find_documented_values(tree) | find_documented_methods(tree)
    return members


def parse_class(found: type) -> ast.ClassDef:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(found))).body
    assert isinstance(tree, ast.ClassDef)
    return tree


def find_documented_values(tree: ast.Module | ast.ClassDef) -> dict[str, tuple[str, str]]:
    """Return the assignments with a text below them."""
    values = {}
    for assignment, below in zip(tree.body, tree.body[1:], strict=False):
        match assignment, below:
            case (
                (ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)])),
                ast.Expr(value=ast.Constant(value=str(text))),
            ) if not name.startswith("_"):
                values[name] = (format_assignment(assignment), inspect.cleandoc(text))
    return values


def format_assignment(assignment: ast.stmt) -> str:
    """Return the assignment as written, with the default of a dataclass field in place of `field(…)`."""
    match assignment:
        case ast.AnnAssign(
            target=target, annotation=annotation, value=ast.Call(func=ast.Name(id="field"), keywords=given)
        ):
            defaults = [each.value for each in given if each.arg in ("default", "default_factory")]
            shown = "".join(f" = {ast.unparse(value)}" for value in defaults)
            return f"{ast.unparse(target)}: {ast.unparse(annotation)}{shown}"
    return ast.unparse(assignment)


def find_documented_methods(tree: ast.ClassDef) -> dict[str, tuple[str, str]]:
    methods = {}
    for node in tree.body:
        if isinstance(node, Function) and not node.name.startswith("_") and (text := ast.get_docstring(node)):
            is_property = any(ast.unparse(each).endswith("property") for each in node.decorator_list)
            is_static = any(ast.unparse(each) == "staticmethod" for each in node.decorator_list)
            arguments = "" if is_property else f"({', '.join(list_arguments(node, bound=not is_static))})"
            methods[node.name] = (node.name + arguments + format_result(node, is_property=is_property), text)
    return methods


def format_result(node: Function, *, is_property: bool = False) -> str:
    if node.returns is None:
        return ""
    return (": " if is_property else " -> ") + ast.unparse(node.returns)


def format_signature(name: str, found: Any) -> str:
    """Return the signature as the source has it; on several lines if it is long."""
    if isinstance(found, type):
        arguments, result = format_class_arguments(found), ""
    else:
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(found)))).body
        assert isinstance(node, Function)
        arguments, result = list_arguments(node), format_result(node)
    if arguments is None:
        return f"class {name}"
    line = f"{name}({', '.join(arguments)}){result}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{name}(", *(f"    {argument}," for argument in arguments), f"){result}"])


def format_class_arguments(found: type) -> list[str] | None:
    """Return the arguments of the constructor; None if it is not of this package."""
    if is_dataclass(found):
        return list_fields(found)
    for base in found.__mro__:
        if base.__module__.startswith("django_phi_oidc"):
            for node in parse_class(base).body:
                if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                    return list_arguments(node, bound=True)
    return None


def list_fields(found: type) -> list[str]:
    written: dict[str, ast.AnnAssign] = {}
    for base in reversed(found.__mro__):
        if is_dataclass(base):
            written |= {
                node.target.id: node
                for node in parse_class(base).body
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
            }
    accepted = [field for field in fields(found) if field.init]
    by_place = [field.name for field in accepted if not field.kw_only]
    by_name = [field.name for field in accepted if field.kw_only]
    shown = {name: format_assignment(written[name]) for name in [*by_place, *by_name]}
    return [*(shown[name] for name in by_place), *(["*"] if by_name else []), *(shown[name] for name in by_name)]


def list_arguments(node: Function, *, bound: bool = False) -> list[str]:
    """Return the arguments one by one, as written."""
    arguments = node.args
    places = [*arguments.posonlyargs, *arguments.args][1 if bound else 0 :]
    defaults = [None] * (len(places) - len(arguments.defaults)) + list(arguments.defaults)
    listed = [format_argument(each, default) for each, default in zip(places, defaults, strict=True)]
    if arguments.vararg:
        listed.append("*" + ast.unparse(arguments.vararg))
    elif arguments.kwonlyargs:
        listed.append("*")
    listed += [
        format_argument(each, default)
        for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    return [*listed, *(["**" + ast.unparse(arguments.kwarg)] if arguments.kwarg else [])]


def format_argument(argument: ast.arg, default: ast.expr | None) -> str:
    written = ast.unparse(argument)
    if default is None:
        return written
    return written + (" = " if argument.annotation else "=") + ast.unparse(default)


def convert_docstring(text: str) -> str:
    """Return a docstring as Markdown: a paragraph for each section such as Raises, and a table as code."""
    text = TABLE.sub(lambda hit: textwrap.indent(hit[0], "    "), text)
    text = LABEL.sub(r"\n\n**\1:** ", text)
    return re.sub(r" *\n{2,}", "\n\n", text).strip()


if __name__ == "__main__":
    django.setup()
    PAGES["python"].write_text(regenerate(PAGES["python"].read_text()))
