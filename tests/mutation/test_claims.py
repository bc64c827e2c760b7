"""Each row of the pages has a mutation, and each mutation fits its row and the code. `make evidence` runs them."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.mutation.claims import (
    PAGES,
    Mutation,
    list_faults,
    list_mutations,
    list_rows,
    list_rows_without_mutation,
    parse_mutations,
    parse_rows,
)
from tests.mutation.evidence import NO_TESTS, SKIPPED, find_problem, parse_arguments, run_mutations, select_mutations

ROWS = list_rows()
PAGE = """
## A heading

| section | function | test |
|---|---|---|
| 1 | `oidc.a` | `unit/test_a.py::test_a`, `unit/test_b.py::test_b` |
| 2 | `oidc.b` | `unit/test_b.py::test_b` |

Text with `unit/test_c.py::test_c`, and

| another | table |
|---|---|
| 3 | `unit/test_c.py::test_c` |
"""
ENTRY = {
    "page": "specs.md",
    "row": "`oidc.jose.encode_b64url`",
    "file": "oidc/jose.py",
    "find": '.rstrip(b"=")',
    "replace": "",
    "test": "unit/oidc/test_authorization.py::test_code_challenge_example_of_rfc_7636_is_its_challenge",
}


def test_each_row_has_a_mutation() -> None:
    assert list_rows_without_mutation(ROWS, list_mutations(ROWS)) == []
    assert {row.page for row in ROWS} == set(PAGES)


def test_each_mutation_fits_its_row_and_the_code() -> None:
    assert list(list_faults(list_mutations(ROWS), ROWS)) == []


def test_missing_mutation_is_found() -> None:
    without = [mutation for mutation in list_mutations(ROWS) if mutation.row != ENTRY["row"]]
    (row,) = list_rows_without_mutation(ROWS, without)
    assert ENTRY["row"] in row.text


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"row": "`oidc.jose.encode`"}, "not in exactly one row"),
        ({"row": "`oidc.jose."}, "not in exactly one row"),
        ({"page": "nowhere.md"}, "not in exactly one row"),
        ({"test": "unit/oidc/test_jose.py::test_another"}, "does not name the test"),
        ({"find": "no such text"}, "occurs 0 times instead of 1"),
        ({"find": "return"}, "times instead of 1"),
        ({"file": "oidc/nowhere.py"}, "occurs 0 times instead of 1"),
        ({"replace": ENTRY["find"]}, "changes nothing"),
    ],
)
def test_wrong_mutation_is_found(change: dict[str, str], fault: str | None) -> None:
    faults = list(list_faults([Mutation(**{**ENTRY, **change})], ROWS))
    assert len(faults) == (fault is not None)
    assert not fault or fault in faults[0]


def test_rows_are_those_of_tables_with_tests() -> None:
    first, second = parse_rows("page.md", PAGE)
    assert first.tests == ("unit/test_a.py::test_a", "unit/test_b.py::test_b")
    assert (second.heading, second.tests) == ("A heading", ("unit/test_b.py::test_b",))


def test_test_may_be_omitted_if_the_row_names_one() -> None:
    rows = list(parse_rows("page.md", PAGE))
    text = """[["page.md"]]\nrow = "`oidc.{}`"\nfile = "a.py"\nfind = "x"\nreplace = "y"\n"""
    assert [parse_mutations(text.format(name), rows)[0].test for name in "ab"] == ["", "unit/test_b.py::test_b"]


def outcome(exit_code: int, *failed_phases: str, passed: int = 0, deselected: int = 0) -> dict[str, Any]:
    phases = list(failed_phases)
    return {
        "exit_code": exit_code,
        "failed_phases": phases,
        "passed": passed,
        "deselected": deselected,
        "message": "",
    }


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (outcome(1, "call"), ""),
        (outcome(1, "call", "teardown"), ""),
        (outcome(1, "setup"), "before it begins"),
        (outcome(0, passed=1), "passes"),
        (outcome(0), SKIPPED),
        *((outcome(code), "may break an import") for code in (2, 3, 4, NO_TESTS)),
        ({}, "no outcome"),
    ],
)
def test_only_a_test_that_fails_while_it_runs_has_noticed_a_mutation(result: dict[str, Any], problem: str) -> None:
    assert problem in find_problem(result)
    assert bool(find_problem(result)) is bool(problem)


@dataclass
class ScriptedCopy:
    """Answers with the outcomes by database, without and with a mutation."""

    unchanged: dict[str, dict[str, Any]]
    changed: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(self, test: str, *, database: str) -> dict[str, Any]:
        return self.unchanged[database]

    def run_changed(self, mutation: Mutation, *, database: str) -> dict[str, Any]:
        return self.changed[database]


PASSED, NOTICED, ELSEWHERE = outcome(0, passed=1), outcome(1, "call"), outcome(NO_TESTS, deselected=1)


@pytest.mark.parametrize(
    ("copy", "problem"),
    [
        (ScriptedCopy({"sqlite": PASSED}, {"sqlite": NOTICED}), ""),
        (ScriptedCopy({"sqlite": PASSED}, {"sqlite": PASSED}), "passes"),
        (ScriptedCopy({"sqlite": NOTICED}), "fails without the mutation"),
        (ScriptedCopy({"sqlite": outcome(0)}), SKIPPED),
        (ScriptedCopy({"sqlite": ELSEWHERE, "postgresql": PASSED}, {"postgresql": NOTICED}), ""),
        (ScriptedCopy({"sqlite": ELSEWHERE, "postgresql": outcome(4)}), "may break an import"),
        (
            ScriptedCopy(
                {"sqlite": outcome(0, passed=1, deselected=1), "postgresql": PASSED},
                {"sqlite": PASSED, "postgresql": NOTICED},
            ),
            "",
        ),
        (ScriptedCopy({"sqlite": ELSEWHERE, "postgresql": ELSEWHERE}), "on any database"),
    ],
)
def test_test_runs_on_each_database_that_it_needs(copy: Any, problem: str) -> None:
    (result,) = run_mutations(copy, ENTRY["test"], [Mutation(**ENTRY)])
    assert problem in result.problem
    assert bool(result.problem) is bool(problem)


def test_sample_is_another_one_each_day_and_can_be_repeated() -> None:
    mutations = list_mutations(ROWS)

    def sample(date: str) -> list[Mutation]:
        return select_mutations(mutations, parse_arguments(["--sample", "5", "--date", date]))

    assert sample("2026-01-31") == sample("2026-01-31") != sample("2026-02-01")
    assert len(sample("2026-01-31")) == 5
