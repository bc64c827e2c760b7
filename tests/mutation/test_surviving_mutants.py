"""The page explains mutants of existing code. `make mutate` tests whether they survive."""

import ast

import pytest

from tests.mutation.surviving_mutants import ROOT, Change, list_explained, parse_page


def list_functions(code: str, name: str) -> list[str]:
    """Return the source of the functions and methods with that name, without line breaks."""
    functions = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            source = ast.get_source_segment(code, node) or ""
            functions.append(" ".join(source.split()))
    return functions


@pytest.mark.parametrize("change", list_explained(), ids=str)
def test_explained_mutant_is_in_existing_code(change: Change) -> None:
    code = (ROOT / "django_phi_oidc" / change.module).read_text()
    # `make mutate` compares the function as well, so the line must not have moved to another one.
    functions = list_functions(code, change.function.rpartition(".")[2])
    assert any(" ".join(change.before.split()) in function for function in functions)


def test_no_mutant_is_explained_twice() -> None:
    assert len(set(list_explained())) == len(list_explained()) > 0


def test_page_is_parsed_as_make_mutate_writes_it() -> None:
    changes = [Change("oidc/a.py", "f", "x = {y!r}", "x = None"), Change("audit/merkle/b.py", "C.g", "z=z,", "")]
    page = "".join(f"### `{change.module}`\n- A reason.\n{change}\n" for change in changes)
    assert parse_page(page) == changes
