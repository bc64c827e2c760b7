"""The pages that map requirements to functions and tests name existing ones, and omit none."""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import django_phi_oidc
from tests.docs.manual.requirement_tables import FILE, read_tables, render

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = Path(django_phi_oidc.__file__).parent
SPECS = (ROOT / "docs" / "specs.md").read_text()
ROW = re.compile(r"^\| .+ \| `(?P<function>[\w.]+)` \| `\S+::\S+`(?:, `\S+::\S+`)* \|$", re.MULTILINE)
NAMED_TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
LAW_PAGES = (
    "hipaa.md",
    *(f"explanation/{name}.md" for name in ("asvs", "nist-800-63", "part2", "security-rule-nprm")),
)
# Auditors do not rely on the test kit.
APART = "testing"


def with_a_spec(tree: ast.AST, prefix: str) -> Iterator[str]:
    """Yield the public functions, classes and methods whose docstring names a specification."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{prefix}.{node.name}"
            if "Spec:" in (ast.get_docstring(node) or "") and not node.name.startswith("_"):
                yield name
            yield from with_a_spec(node, name)


def exists(path: str, name: str) -> bool:
    file = ROOT / "tests" / path
    return file.is_file() and f"def {name}(" in file.read_text()


def test_functions_with_a_spec_are_listed() -> None:
    modules = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != APART]
    found = {
        name
        for path in modules
        for name in with_a_spec(ast.parse(path.read_text()), ".".join(path.relative_to(PACKAGE).with_suffix("").parts))
    }
    assert {row["function"] for row in ROW.finditer(SPECS)} == found
    assert len(found) > 150


def test_every_row_of_the_specifications_is_read() -> None:
    heads = SPECS.count("| section | function | test |")
    assert len(ROW.findall(SPECS)) == len(re.findall(r"^\| ", SPECS, re.MULTILINE)) - heads


@pytest.mark.parametrize("function", [row["function"] for row in ROW.finditer(SPECS)])
def test_function_of_a_row_exists(function: str) -> None:
    assert callable(resolve(function))


def resolve(function: str) -> Any:
    """Return the object with this dotted path below the package, or None."""
    names = function.split(".")
    for split in range(len(names) - 1, 0, -1):
        if PACKAGE.joinpath(*names[:split]).with_suffix(".py").is_file():
            found: Any = import_module(".".join(["django_phi_oidc", *names[:split]]))
            for name in names[split:]:
                found = getattr(found, name, None)
            return found
    return None


def test_missing_function_is_not_resolved() -> None:
    assert [resolve(name) for name in ("oidc.nowhere.verify", "oidc.id_token.nothing")] == [None, None]


@pytest.mark.parametrize("page", [*LAW_PAGES, "specs.md", "explanation/profiles.md", "explanation/threat-model.md"])
def test_tests_named_on_a_page_exist(page: str) -> None:
    named = NAMED_TEST.findall((ROOT / "docs" / page).read_text())
    assert [f"{path}::{name}" for path, name in named if not exists(path, name)] == []
    assert len(named) > 10
    assert not exists(named[0][0], named[0][1] + "_not")


@pytest.mark.parametrize("page", LAW_PAGES)
def test_rows_of_a_law_are_distinct_and_a_part_that_is_met_names_a_test(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    rows = [row for table in read_tables(f"docs/{page}", text) for row in table["controls"]]
    ids = [row["id"] for row in rows]
    assert len(set(ids)) == len(ids) == len(re.findall(r"^\| (?!id \|)", text, re.MULTILINE)) > 10
    assert [row["id"] for row in rows if row["state"] == "partly" and not row["tests"]] == []


def test_every_requirement_of_a_profile_names_a_test() -> None:
    rows = re.findall(r"^\| .+\|$", (ROOT / "docs" / "explanation" / "profiles.md").read_text(), re.MULTILINE)
    assert [row for row in rows if not NAMED_TEST.search(row) and not row.endswith("| test |")] == []
    assert len(rows) > 20


TABLE = """# 42 CFR Part 2: records

| id | requirement | state | in this app | test |
|---|---|---|---|---|
| 2.13(a), 2.33 | consent | met | [it](guard.md) **refuses** `a\\|b` | `unit/x.py::test_one`, `unit/y.py::test_two` |
| 2.13(a), 2.33 | more | yours | none | none |

## 45 CFR 164.312

| paragraph | requirement | state | in this app | test |
|---|---|---|---|---|
| (a)(1) | access | partly | it | none |

| another | table |
|---|---|
"""


def test_controls_of_evidence_packs_match_the_manual() -> None:
    assert FILE.read_text() == render(), "make reference"


def test_each_table_of_requirements_is_read() -> None:
    first, second = read_tables("docs/page.md", TABLE)
    assert (first["title"], first["source"]) == (
        "42 CFR Part 2: records",
        "https://www.ecfr.gov/current/title-42/part-2",
    )
    assert first["controls"][0] == {
        "id": "2.13(a), 2.33",
        "control_id": "c-2.13-a-2.33",
        "requirement": "consent",
        "state": "met",
        "implementation": "it refuses `a|b`",
        "tests": ["tests/unit/x.py::test_one", "tests/unit/y.py::test_two"],
    }
    assert (first["controls"][1]["control_id"], first["controls"][1]["tests"]) == ("c-2.13-a-2.33_2", [])
    assert second["source"] == "https://www.ecfr.gov/current/title-45/section-164.312"
    assert [control["control_id"] for control in second["controls"]] == ["c-a-1"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("| yours |", "| nearly |", "one of the states"),
        ("| partly | it ", "| partly | it | more ", "five cells"),
        ("`unit/x.py::test_one`, `unit/y.py::test_two`", "none", "no test shows what is met"),
        ("# 42 CFR Part 2: records", "# Records", "no source is known"),
    ],
)
def test_wrong_table_of_requirements_is_refused(old: str, new: str, message: str) -> None:
    assert list(read_tables("docs/page.md", TABLE))
    assert TABLE.replace(old, new) != TABLE
    with pytest.raises(ValueError, match=message):
        list(read_tables("docs/page.md", TABLE.replace(old, new)))
