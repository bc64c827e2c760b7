"""The Python reference lists everything that other pages import, and each listed object has a complete docstring."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from inspect import signature
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

import pytest

from django_phi_oidc import errors
from tests.docs.manual.python_entries import BRIEF, SECTIONS
from tests.docs.manual.python_reference import (
    SECTION,
    convert_docstring,
    format_signature,
    list_paths,
    read_members,
    regenerate,
    render_section,
    shorten_member,
)
from tests.support.manual_blocks import PAGES, ROOT

PAGE = PAGES["python"].read_text()
LISTED = {path: resolve_name(path) for path in list_paths()}
GUIDES = {
    name: path.read_text()
    for name, path in PAGES.items()
    if path.parent.name == "how-to" or name in ("README", "tutorial")
}
IMPORT = re.compile(r"^\s*from (django_phi_oidc[\w.]*) import ([\w, ]+)$", re.MULTILINE)
DOTTED = re.compile(r"[`\"'](django_phi_oidc(?:\.\w+)+)[`\"'(]")


def used(text: str) -> Iterator[tuple[str, Any]]:
    """Yield what a page imports, calls in an imported module, or names by its dotted path."""
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
        # Permissions have the same form, but are in no module.
        if (ROOT / "django_phi_oidc" / path.split(".")[1]).with_suffix(".py").is_file() or path.count(".") > 1:
            found = resolve_name(path)
            if not isinstance(found, ModuleType):
                yield path, found


def unlisted(text: str) -> list[str]:
    return [name for name, found in used(text) if all(found is not each for each in LISTED.values())]


def test_page_has_a_section_for_each_entry() -> None:
    assert [hit["title"] for hit in SECTION.finditer(PAGE)] == list(SECTIONS)


def test_sections_match_the_code_and_a_stale_one_is_found() -> None:
    assert regenerate(PAGE) == PAGE, "make reference"
    stale = PAGE.replace("max_age: timedelta | None = None,", "max_age: timedelta,")
    assert stale != PAGE
    assert regenerate(stale) == PAGE


@dataclass(frozen=True, kw_only=True)
class Example:
    first: str
    """The first. Spec: RFC 1."""
    second: list[str] = field(default_factory=list)

    def join(self, *, by: str = ",") -> str:
        """Return both. Raises: nothing."""
        return by.join([self.first, *self.second])

    @property
    def length(self) -> int:
        """The length."""
        return len(self.first)

    def undocumented(self) -> None: ...


def test_section_shows_signature_docstring_and_documented_members() -> None:
    assert format_signature("Example", Example) == "Example(*, first: str, second: list[str] = list)"
    # Members of a class outside of the package, as those of this test, are shown too.
    assert list(read_members(Example)) == ["first", "join", "length"]
    assert read_members(Example)["join"][0] == "join(*, by: str = ',') -> str"
    assert read_members(Example)["length"][0] == "length: int"
    shown = "\n".join(render_section({"schedule.beat_schedule": ()}))
    assert shown.startswith("### beat_schedule\n\n    django_phi_oidc.schedule.beat_schedule(")
    assert "\n\ninstalled_apps: INSTALLED_APPS" in shown


def test_section_starts_with_the_brief_entries() -> None:
    entries = {"audit.recorder.record": (), "decorators.passive": BRIEF, "errors.TokenExpired": BRIEF}
    shown = "\n".join(render_section(entries))
    assert shown.startswith("- `django_phi_oidc.decorators.passive(view)`: Declare that ")
    assert "\n- `TokenExpired`: `token_expired`\n" in shown
    assert "\n\n### record\n" in shown


@dataclass(frozen=True, kw_only=True)
class Derived(Example):
    third: int = 3


def test_signature_of_a_subclass_has_its_own_fields() -> None:
    assert format_signature("Derived", Derived) == "Derived(*, third: int = 3)"


def test_page_has_the_part_of_a_docstring_that_a_caller_needs() -> None:
    first = "Return\nit. Raises: `A`, then `B`. Spec:\nRFC 1."
    text = f"{first}\n\nWhy it is so. by: the\nseparator. It is long.\nNone: nothing."
    shown = "Return it.\n\n**Raises:** `A`, then `B`.\n\n**Spec:** RFC 1."
    assert convert_docstring(text) == f"{shown}\n\nNone: nothing."
    assert convert_docstring(text, arguments={"by"}) == f"{shown}\n\nby: the separator."
    assert convert_docstring("A.\n\nB.", arguments=None) == "A.\n\nB."


def test_member_has_its_first_paragraph_and_what_it_raises() -> None:
    assert (
        shorten_member("Return it.\nAlways. Raises: `A`. Spec: RFC 1.\n\nWhy.") == "Return it. Always. **Raises:** `A`."
    )


@pytest.mark.parametrize("page", GUIDES)
def test_imports_of_a_page_are_listed(page: str) -> None:
    assert unlisted(GUIDES[page]) == []


def test_unlisted_imports_are_found() -> None:
    assert sum(len(list(used(text))) for text in GUIDES.values()) > 30
    text = """\
from django_phi_oidc.claims import disclosure
from django_phi_oidc.audit.request_context import Actor
from django_phi_oidc._internal.clock import now
disclosure.reveal()
`django_phi_oidc._internal.randomness.token_bytes`, `phi_oidc_audit.view_auditevent`
"""
    assert unlisted(text) == ["now", "django_phi_oidc._internal.randomness.token_bytes"]


def test_arguments_in_a_table_are_those_of_the_signature() -> None:
    rows = re.findall(r"^\| `([\w.]+)\(([^`]+)\)` \|", PAGES["access"].read_text(), re.MULTILINE)
    documented = {name: re.findall(r"(?:^|, )(\*|\w+)", arguments) for name, arguments in rows}
    assert len(documented) > 1
    for name, arguments in documented.items():
        parameters = signature(resolve_name(f"django_phi_oidc.{name}")).parameters.values()
        by_place = [each.name for each in parameters if each.kind is not each.KEYWORD_ONLY]
        by_name = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
        assert arguments == [*by_place, *(["*"] if by_name else []), *by_name]


@pytest.mark.parametrize("path", [path for path, found in LISTED.items() if callable(found)])
def test_listed_object_has_a_docstring_and_its_errors_are_listed(path: str) -> None:
    documented = LISTED[path].__doc__
    assert documented
    # The docstring that a dataclass gets without one in the source.
    assert not documented.startswith(f"{path.rpartition('.')[2]}(")
    raised = re.findall(r"\w+", " ".join(re.findall(r"Raises: (.*?)(?:Spec:|$)", documented, re.DOTALL)))
    named = [error for name in raised if isinstance(error := getattr(errors, name, None), type)]
    assert [error for error in named if error not in LISTED.values()] == []
