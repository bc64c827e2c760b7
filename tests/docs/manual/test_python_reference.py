"""The page about Python has all that a project is told to import, and what stands there says what one must know."""

import re
from collections.abc import Iterator
from inspect import signature
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

import pytest

from django_phi_oidc import errors
from tests.support.manual_blocks import PAGES, ROOT

LISTED = {
    path: resolve_name(path)
    for path in re.findall(r"^\.\. auto\w+:: (\S+)$", PAGES["python"].read_text(), re.MULTILINE)
}
TOLD = {
    name: path.read_text()
    for name, path in PAGES.items()
    if path.parent.name == "how-to" or name in ("README", "tutorial")
}
IMPORT = re.compile(r"^\s*from (django_phi_oidc[\w.]*) import ([\w, ]+)$", re.MULTILINE)
DOTTED = re.compile(r"[`\"'](django_phi_oidc(?:\.\w+)+)[`\"'(]")


def used(text: str) -> Iterator[tuple[str, Any]]:
    """Give what a page imports, calls of a module that it imports, or names by its path."""
    for module, names in IMPORT.findall(text):
        for name in names.split(", "):
            found = resolve_name(f"{module}.{name}")
            if isinstance(found, ModuleType):
                yield from (
                    (f"{name}.{each}", getattr(found, each)) for each in re.findall(rf"\b{name}\.(\w+)\(", text)
                )
            else:
                yield name, found
    for path in DOTTED.findall(text):
        # Permissions are named in the same way, and are no module's.
        if (ROOT / "django_phi_oidc" / path.split(".")[1]).with_suffix(".py").is_file() or path.count(".") > 1:
            found = resolve_name(path)
            if not isinstance(found, ModuleType):
                yield path, found


def unlisted(text: str) -> list[str]:
    return [name for name, found in used(text) if all(found is not each for each in LISTED.values())]


@pytest.mark.parametrize("page", TOLD)
def test_what_a_page_imports_is_listed(page: str) -> None:
    assert unlisted(TOLD[page]) == []


def test_pages_import_much_and_what_is_not_listed_is_found() -> None:
    assert sum(len(list(used(text))) for text in TOLD.values()) > 30
    text = """\
from django_phi_oidc.claims import disclosure
from django_phi_oidc.audit.request_context import Actor
from django_phi_oidc._internal.clock import now
disclosure.reveal()
`django_phi_oidc._internal.randomness.token_bytes`, `django_phi_oidc.view_auditevent`
"""
    assert unlisted(text) == ["now", "django_phi_oidc._internal.randomness.token_bytes"]


@pytest.mark.parametrize(("page", "home"), [("access", "django_phi_oidc"), ("claims", "django_phi_oidc.claims")])
def test_arguments_in_a_table_are_those_of_the_signature(page: str, home: str) -> None:
    rows = re.findall(r"^\| `([\w.]+)\(([^`]+)\)` \|", PAGES[page].read_text(), re.MULTILINE)
    told = {name: re.findall(r"(?:^|, )(\*|\w+)", arguments) for name, arguments in rows}
    assert len(told) > 1
    for name, arguments in told.items():
        parameters = signature(resolve_name(f"{home}.{name}")).parameters.values()
        by_place = [each.name for each in parameters if each.kind is not each.KEYWORD_ONLY]
        by_name = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
        assert arguments == [*by_place, *(["*"] if by_name else []), *by_name]


@pytest.mark.parametrize("path", [path for path, found in LISTED.items() if callable(found)])
def test_what_is_listed_has_a_docstring_and_so_have_the_errors_that_it_names(path: str) -> None:
    told = LISTED[path].__doc__
    assert told
    # What a dataclass is given where nobody wrote one.
    assert not told.startswith(f"{path.rpartition('.')[2]}(")
    raised = re.findall(r"\w+", " ".join(re.findall(r"Raises: (.*?)(?:Spec:|$)", told, re.DOTALL)))
    named = [error for name in raised if isinstance(error := getattr(errors, name, None), type)]
    assert [error for error in named if error not in LISTED.values()] == []
