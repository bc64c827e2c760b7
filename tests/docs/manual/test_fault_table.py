"""The page about faults covers each dependency and each way to fail, and names existing tests."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "explanation" / "dependency-failures.md").read_text()
DEPENDENCIES = (
    *("Keys of the portal", "Signing key"),
    *("The provider's metadata and keys", "Pushed authorization, token endpoint, UserInfo"),
    *("Revocation", "Introspection", "End of session"),
    *("Audit database", "Main database", "Broker", "Cache", "Mail", "Clock"),
)
WAYS = {"unavailable at start", "unavailable later", "hangs", "wrong", "slow", "back again"}
HEADER = ["fault", "a user sees", "late or lost", "reported by", "test"]
TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
WITHOUT_ROW = re.compile(r"^Not possible: (\*\*[^.]*\*\*)\.", re.MULTILINE)
"""A sentence about ways to fail that have no row."""
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", PAGE, re.MULTILINE))


def rows_of(section: str) -> list[list[str]]:
    """Return the cells of the table, with its header and the line below it."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", section, re.MULTILINE)
    ]


def ways_with_a_row(section: str) -> set[str]:
    return {way.strip() for cells in rows_of(section)[2:] for way in cells[0].partition(":")[0].split(",")}


def ways_without_a_row(section: str) -> set[str]:
    return {way for names in WITHOUT_ROW.findall(section) for way in re.findall(r"\*\*(.+?)\*\*", names)}


@cache
def list_tests(path: str) -> frozenset[str]:
    """Return the names of the tests in the file, and in its classes; none if there is no such file."""
    file = ROOT / "tests" / path
    if not file.is_file():
        return frozenset()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, functions))


def test_each_dependency_has_a_section() -> None:
    assert tuple(SECTIONS) == DEPENDENCIES


@pytest.mark.parametrize("dependency", DEPENDENCIES)
def test_each_way_to_fail_has_a_row_or_a_sentence(dependency: str) -> None:
    section = SECTIONS[dependency]
    with_row, without = ways_with_a_row(section), ways_without_a_row(section)
    assert with_row | without == WAYS
    assert not with_row & without


@pytest.mark.parametrize("dependency", DEPENDENCIES)
def test_each_row_is_complete_and_names_existing_tests(dependency: str) -> None:
    header, _, *rows = rows_of(SECTIONS[dependency])
    assert header == HEADER
    assert rows
    for cells in rows:
        assert len(cells) == len(HEADER), cells
        assert all(cells), cells
        for name in cells[-1].split(", "):
            named = TEST.fullmatch(name)
            assert named, cells
            assert named[2] in list_tests(named[1]), name


def test_missing_test_is_not_found() -> None:
    path, name = TEST.findall(PAGE)[0]
    assert name in list_tests(path)
    assert f"{name}_not" not in list_tests(path)
    assert list_tests("nowhere.py") == frozenset()
