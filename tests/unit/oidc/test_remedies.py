"""Each remedy belongs to an error that exists, and the most specific one is found."""

import pytest

from django_phi_oidc.oidc.error_codes import REGISTERED_ERROR_CODES
from django_phi_oidc.oidc.remedies import REMEDIES, find_remedy
from tests.support.rule_code_catalogue import list_all_codes

CODES = {*list_all_codes(), "internal_error"}


def test_each_remedy_is_of_an_existing_error() -> None:
    for key in REMEDIES:
        code, _, provider_error = key.partition(" ")
        assert code in (CODES if provider_error else CODES | REGISTERED_ERROR_CODES), key
        assert not provider_error or provider_error in REGISTERED_ERROR_CODES, key
        assert find_remedy(code, provider_error) == REMEDIES[key]


def test_remedies_are_sentences_of_printable_ascii() -> None:
    for text in REMEDIES.values():
        assert text.isascii(), text
        assert text.isprintable(), text
        assert text.endswith("."), text


@pytest.mark.parametrize(
    ("code", "provider_error", "key"),
    [
        ("par_error", "invalid_request", "par_error invalid_request"),
        ("token_error", "invalid_request", "token_error"),
        ("token_error", "invalid_client", "invalid_client"),
        ("token_error", "other", "token_error"),
        ("token_error", "", "token_error"),
        ("http_400", "invalid_client", "invalid_client"),
    ],
)
def test_most_specific_remedy_is_found(code: str, provider_error: str, key: str) -> None:
    assert find_remedy(code, provider_error) == REMEDIES[key]


def test_code_without_a_remedy_has_none() -> None:
    assert find_remedy("signature_invalid") == ""
    assert find_remedy("http_400", "other") == ""
