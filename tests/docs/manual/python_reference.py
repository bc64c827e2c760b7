"""The sections of docs/reference/python.md, generated from the signatures and docstrings in the code: `make reference`.

The page has the part of a docstring that a caller needs: the first paragraph, what it says about arguments, Requires,
Raises and Spec. `python_entries` lists what each section shows.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from pkgutil import resolve_name
from typing import Any

import django

from tests.docs.manual.python_entries import ALL, BRIEF, SECTIONS
from tests.support.manual_blocks import PAGES

SECTION = re.compile(
    r"(?P<head>^## (?P<title>[^\n]+)\n(?:(?!^## ).)*?<!-- `make reference` writes this section -->\n).*?"
    r"(?P<foot><!-- end -->)",
    re.DOTALL | re.MULTILINE,
)
LABEL = re.compile(r"(?:^|(?<=\.) )(Raises|Requires|Spec|NOT \w+): ")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`(\"]|\w+(?:, \w+)*: )")
ARGUMENT = re.compile(r"(\w+)(?:, \w+)*: ")
WIDTH = 120
RESULTS = frozenset({"None", "True", "False"})
Function = ast.FunctionDef | ast.AsyncFunctionDef


def regenerate(page: str) -> str:
    """Return the page with new sections."""
    return SECTION.sub(
        lambda hit: hit["head"] + "\n" + "\n".join(render_section(SECTIONS[hit["title"]])) + hit["foot"], page
    )


def list_paths() -> list[str]:
    """Return the path of everything that the page shows."""
    return [f"django_phi_oidc.{path}" for entries in SECTIONS.values() for path in entries]


def render_section(entries: Mapping[str, tuple[str, ...] | None]) -> Iterator[str]:
    """Yield the lines of a section: first a list of the brief entries, then the others."""
    brief = [path for path, members in entries.items() if members is BRIEF]
    for path in brief:
        yield render_brief(f"django_phi_oidc.{path}")
    if brief:
        yield ""
    for path, members in entries.items():
        if members is not BRIEF:
            yield from render_entry(f"django_phi_oidc.{path}", members)


def render_brief(path: str) -> str:
    """Return an item of a list: the path, the arguments or fields, and the first paragraph or the code of an error."""
    found = resolve_name(path)
    # A class for one step of a sign-in has the code of the rule only in its instances.
    if isinstance(found, type) and issubclass(found, Exception) and hasattr(found, "code"):
        return f"- `{path.rpartition('.')[2]}`: `{found.code}`"
    if is_dataclass(found):
        path += f"({', '.join(each.name for each in fields(found))})"
    elif inspect.isfunction(found) or hasattr(found, "_fields"):
        path += f"({', '.join(inspect.signature(found).parameters)})"
    return f"- `{path}`: {split_paragraphs(inspect.getdoc(found) or '')[0]}"


def render_entry(path: str, members: tuple[str, ...]) -> Iterator[str]:
    """Yield the lines of one object: heading, signature, docstring, members."""
    found = resolve_name(path)
    module, _, name = path.rpartition(".")
    yield f"### {name}\n"
    if not callable(found):
        assignment, text = find_documented_values(ast.parse(inspect.getsource(import_module(module))))[name]
        yield f"    {module}.{assignment if len(assignment) <= WIDTH else name}\n"
        yield convert_docstring(text, arguments=None) + "\n"
        return
    yield textwrap.indent(format_signature(path, found), "    ") + "\n"
    yield convert_docstring(inspect.getdoc(found) or "", arguments=list_parameters(found)) + "\n"
    if isinstance(found, type) and is_dataclass(found) and is_dataclass(found.__base__):
        yield f"It also has the arguments of `{found.__base__.__name__}`.\n"
    if members:
        yield from [*render_members(found, members), ""]


def list_parameters(found: Any) -> frozenset[str]:
    """Return the names about which a docstring says something after a colon, as `None: there is none`."""
    try:
        return RESULTS | inspect.signature(found).parameters.keys()
    except (TypeError, ValueError):
        return RESULTS


def render_members(found: type, members: tuple[str, ...]) -> Iterator[str]:
    documented = read_members(found)
    for name in read_members(found, inherited=False) if members == ALL else members:
        signature, text = documented[name]
        # The signature of a dataclass above has the types and defaults of its fields.
        if is_dataclass(found) and name in inspect.signature(found).parameters:
            signature = name
        yield f"- `{signature}`: {shorten_member(text)}"


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


def format_signature(path: str, found: Any) -> str:
    """Return the signature as the source has it; on several lines if it is long."""
    if isinstance(found, type):
        arguments, result = format_class_arguments(found), ""
    else:
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(found)))).body
        assert isinstance(node, Function)
        arguments, result = list_arguments(node), format_result(node)
    if arguments is None:
        return f"class {path}"
    line = f"{path}({', '.join(arguments)}){result}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{path}(", *(f"    {argument}," for argument in arguments), f"){result}"])


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
    """Return the fields that a dataclass declares itself."""
    written = {
        node.target.id: format_assignment(node)
        for node in parse_class(found).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    accepted = [field for field in fields(found) if field.init and field.name in written]
    by_place = [written[field.name] for field in accepted if not field.kw_only]
    by_name = [written[field.name] for field in accepted if field.kw_only]
    return [*by_place, *(["*"] if by_name else []), *by_name]


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


def convert_docstring(text: str, *, arguments: Collection[str] | None = RESULTS) -> str:
    """Return a part of a docstring as Markdown: the first paragraph, the sentences about arguments, and the sections.

    arguments: whose sentences are kept; None: all of the docstring.
    """
    first, *others = split_paragraphs(text)
    shown = [first]
    for paragraph in others:
        if paragraph.startswith("**") or arguments is None:
            shown.append(paragraph)
            continue
        about = []
        for sentence in SENTENCE_END.split(paragraph):
            hit = ARGUMENT.match(sentence)
            if hit and hit[1] in arguments:
                about.append(sentence)
        if about:
            shown.append(" ".join(about))
    return "\n\n".join(shown)


def split_paragraphs(text: str) -> list[str]:
    """Return the paragraphs, each in one line; a section such as Raises is one of its own."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in re.split(r"\n{2,}", text)]
    return [part for paragraph in paragraphs for part in LABEL.sub(r"\n**\1:** ", paragraph).split("\n") if part]


def shorten_member(text: str) -> str:
    """Return the first paragraph, and what the member raises."""
    first, *others = split_paragraphs(text)
    return " ".join([first, *(part for part in others if part.startswith("**Raises"))])


if __name__ == "__main__":
    django.setup()
    PAGES["python"].write_text(regenerate(PAGES["python"].read_text()))
