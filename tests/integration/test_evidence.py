"""`make evidence` on real mutations: noticed, not noticed, and one that breaks an import."""

from pathlib import Path

import pytest

import django_phi_oidc
from tests.mutation.claims import Mutation
from tests.mutation.evidence import main, run_all

TEST = "unit/oidc/test_authorization.py::test_code_challenge_example_of_rfc_7636_is_its_challenge"
AUTHORIZATION = Path(django_phi_oidc.__file__).with_name("oidc") / "authorization.py"


def mutation(find: str, replace: str) -> Mutation:
    return Mutation(page="specs.md", row="`x`", file="oidc/authorization.py", find=find, replace=replace, test=TEST)


@pytest.mark.sqlite
def test_mutations_are_applied_to_a_copy_and_undone() -> None:
    before = AUTHORIZATION.read_bytes()
    mutations = [
        mutation("hashlib.sha256(", "hashlib.sha512("),
        mutation("from .jose import encode_b64url", "from .jose import nothing"),
        # Only noticed if the import of the previous mutation was undone.
        mutation("hashlib.sha256(", "hashlib.sha384("),
        mutation("SINGLE_VALUE_PARAMETERS = (", "SINGLE_VALUE_PARAMETERS = tuple("),
        mutation("    validate_single_values(parameters)\n    state", "    state"),
    ]
    noticed, import_error, again, error_at_import, unnoticed = run_all(mutations, workers=1)
    assert noticed.problem == again.problem == ""
    assert "may break an import" in import_error.problem
    assert "may break an import" in error_at_import.problem
    assert unnoticed.problem == "passes"
    assert AUTHORIZATION.read_bytes() == before


@pytest.mark.sqlite
def test_program_prints_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["`oidc.authorization.compute_code_challenge`"]) == 0
    assert "| 1 | 1 | 0 | 0 |" in capsys.readouterr().out
    assert main(["`no.such.function`"]) == 1
