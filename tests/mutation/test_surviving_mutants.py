"""The page explains mutants of existing code. `make mutate` tests whether they survive."""

import pytest

from tests.mutation.surviving_mutants import ROOT, Change, list_explained, parse_page


@pytest.mark.parametrize("change", list_explained(), ids=str)
def test_explained_mutant_is_in_existing_code(change: Change) -> None:
    code = " ".join((ROOT / "django_phi_oidc" / change.module).read_text().split())
    assert f"def {change.function.rpartition('.')[2]}(" in code
    assert " ".join(change.before.split()) in code


def test_no_mutant_is_explained_twice() -> None:
    assert len(set(list_explained())) == len(list_explained()) > 0


def test_page_is_parsed_as_make_mutate_writes_it() -> None:
    changes = [Change("oidc/a.py", "f", "x = {y!r}", "x = None"), Change("audit/merkle/b.py", "C.g", "z=z,", "")]
    page = "".join(f"### `{change.module}`\n- A reason.\n{change}\n" for change in changes)
    assert parse_page(page) == changes
