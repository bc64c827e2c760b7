"""Only registered error codes pass."""

import re

import pytest

from django_phi_oidc.oidc.error_codes import REGISTERED_ERROR_CODES, get_error_code


@pytest.mark.parametrize("code", sorted(REGISTERED_ERROR_CODES))
def test_registered_code_is_returned(code: str) -> None:
    assert get_error_code(code) == code
    assert get_error_code(f"{code} ") == "other"
    assert re.fullmatch("[a-z_]{1,40}", code)


@pytest.mark.parametrize(
    "error",
    [None, "", 7, True, ["invalid_client"], {"invalid_client": 1}, "Invalid_client", "jane@op.example", "x" * 5000],
    ids=lambda error: repr(error)[:20],
)
def test_any_other_value_is_other(error: object) -> None:
    assert get_error_code(error) == "other"
