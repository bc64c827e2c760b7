"""The pages can be read without Sphinx, on the web host of a repository, and are written in plain English."""

import re
from collections import Counter
from pathlib import Path

import pytest

from django_phi_oidc.login.failure_texts import FAILURE_TEXTS
from tests.support.manual_blocks import PAGES, ROOT

DOCS = ROOT / "docs"
FILES = {str(path.relative_to(DOCS)): path for path in DOCS.rglob("*.md")}
TOCTREE = re.compile(r"^```\{toctree\}\n:hidden:\n\n(?P<entries>(?:[\w/.-]+\n)+)```$", re.MULTILINE)
DIRECTIVES = {
    "a directive": re.compile(r"^ *(```+|~~~+|:::+) *\{", re.MULTILINE),
    "a role": re.compile(r"\{[\w:-]+\}`"),
    "a label": re.compile(r"^\([\w-]+\)=$", re.MULTILINE),
    "a substitution": re.compile(r"\{\{ *\w+ *\}\}"),
}
LINK = re.compile(r"\]\(([^)#\s:]+)(?:#[^)\s]*)?\)")
CODE = re.compile(r"^ *```.*?^ *```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
MAX_LISTED_WORDS = 40
LISTED_WORDS = re.compile(
    r"\b(whoever|whatever|whichever|whom|nobody|somebody|tells?|told|telling|bears?|bearing|lets?|beside|ours|theirs"
    r"|one's own|doomed|dies?|hears?|heard|hence|thereof|therein|whereby|thus|upon)\b",
    re.IGNORECASE,
)
"""Archaic words and personification: the page needs a second reading."""
MAX_README_LINES = 120


def find_directives(text: str) -> list[str]:
    """Return what a reader without Sphinx sees as markup."""
    # Code, and templates of Django in it, are shown as they are.
    plain = re.sub(r"`[^`\n]+`", "", re.sub(r"^ *```[\w+]+\n.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL))
    return [name for name, pattern in DIRECTIVES.items() if pattern.search(text if name == "a role" else plain)]


def find_unlinked_entries(file: Path, text: str) -> list[str]:
    """Return the entries of tables of contents to which no link of the page leads."""
    linked = {(file.parent / target).resolve() for target in LINK.findall(text)}
    entries = "".join(hit["entries"] for hit in TOCTREE.finditer(text)).split()
    return [entry for entry in entries if (file.parent / f"{entry}.md").resolve() not in linked]


@pytest.mark.parametrize("name", FILES)
def test_page_has_no_directive_but_a_hidden_table_of_contents(name: str) -> None:
    text = FILES[name].read_text()
    rest = TOCTREE.sub("", text)
    assert find_directives(rest) == []
    assert rest == text or FILES[name].stem == "index"


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith("index.md")])
def test_each_entry_of_a_table_of_contents_is_also_a_link(name: str) -> None:
    text = FILES[name].read_text()
    assert TOCTREE.search(text)
    assert find_unlinked_entries(FILES[name], text) == []
    assert find_unlinked_entries(FILES[name], LINK.sub("", text)) != []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("```{eval-rst}\n.. autofunction:: x\n```", ["a directive"]),
        (":::{note}\nx\n:::", ["a directive"]),
        ("See {ref}`x`.", ["a role"]),
        ("(label)=\n# Title", ["a label"]),
        ("{{ version }}", ["a substitution"]),
        ("```html\n{{ version }}\n```\n`{{ x }}` and `{% y %}`", []),
        ("```console\n$ x {a}\n```", []),
    ],
)
def test_directives_are_found(text: str, found: list[str]) -> None:
    assert find_directives(text) == found


def test_listed_words_are_rare() -> None:
    counts = {
        name: Counter(word.lower() for word in LISTED_WORDS.findall(CODE.sub("", path.read_text())))
        for name, path in FILES.items()
    }
    found = {name: dict(count) for name, count in counts.items() if count}
    assert sum(count.total() for count in counts.values()) <= MAX_LISTED_WORDS, found


def test_listed_words_are_found_outside_of_code() -> None:
    text = "Whoever bears it is told.\n\n```text\nnobody\n```\n`somebody` says more of the bearer."
    assert LISTED_WORDS.findall(CODE.sub("", text)) == ["Whoever", "bears", "told"]


def test_readme_is_short_and_leads_to_each_section() -> None:
    text = PAGES["README"].read_text()
    assert len(text.splitlines()) <= MAX_README_LINES
    sections = [path for name, path in FILES.items() if name.endswith("/index.md")]
    linked = {(ROOT / target).resolve() for target in LINK.findall(text)}
    assert [str(path.relative_to(ROOT)) for path in sections if path not in linked] == []


def test_help_desk_page_lists_each_page_of_a_refused_sign_in() -> None:
    rows = re.findall(r"^\| ([^|]+) \|", PAGES["help-desk"].read_text().partition("## What the user says")[0], re.M)
    titles = {str(text.title) for text in FAILURE_TEXTS.values()}
    assert titles | {"Signing in is not possible at the moment"} == set(rows) - {"page", "---"}
