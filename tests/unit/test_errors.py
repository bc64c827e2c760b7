"""Errors carry the code of their rule, and survive copies and pickles, as threads and task queues make them."""

import copy
import pickle

import pytest

from django_phi_oidc import errors
from django_phi_oidc.errors import Code
from tests.support.rule_code_catalogue import list_all_codes

ERRORS = [
    errors.CallbackError(Code.STATE_MISSING),
    errors.KeyNotFound("No key.", is_certain=False),
    errors.TokenError(status=503, error="invalid_grant"),
    errors.RevealRefused("purpose_mismatch"),
    errors.SubjectTaken(7),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_copied_and_pickled_error_is_equal(error: errors.PhiOidcError) -> None:
    for duplicate in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(duplicate), str(duplicate), vars(duplicate)) == (type(error), str(error), vars(error))


def test_default_message_is_the_description_of_the_code() -> None:
    assert str(errors.CallbackError(Code.STATE_MISSING)) == Code.STATE_MISSING.description
    assert str(errors.CallbackError(Code.STATE_MISSING, "No state.")) == "No state."


@pytest.mark.parametrize(("status", "is_provider_fault"), [(400, False), (429, True), (499, False), (500, True)])
def test_error_of_an_endpoint_is_the_providers_fault_by_its_status(status: int, is_provider_fault: bool) -> None:
    assert errors.TokenError(status=status).is_provider_fault is is_provider_fault
    assert errors.PARError(status=status).is_provider_fault is is_provider_fault


def test_codes_of_the_core_and_of_apps_are_different() -> None:
    codes = [str(code) for code in list_all_codes()]
    assert {"state_missing", "proof_invalid", "trust_chain_invalid", "access_token_invalid"} <= {*codes}
    assert len(codes) == len(set(codes))
