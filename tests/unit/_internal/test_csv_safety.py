"""Texts in a CSV file, as spreadsheets of any country read them."""

import pytest

from django_phi_oidc._internal.csv_safety import escape_formulas


@pytest.mark.parametrize("sign", "=+-@＝＋－＠")
def test_what_begins_a_formula_is_text(sign: str) -> None:
    for before in ("", " ", "\u00a0", "\u3000"):
        assert escape_formulas(f"{before}{sign}1") == f"'{before}{sign}1"
        for separator in ";\n":
            assert escape_formulas(f"Berg{separator}{before}{sign}1;2") == f"Berg{separator}'{before}{sign}1;2"
    for separator in "\t\r\n":
        assert escape_formulas(f"{separator}{sign}1") == f"'{separator}'{sign}1"
    assert escape_formulas(f"1{sign}1") == f"1{sign}1"


@pytest.mark.parametrize("text", ["", "Berg", "Berg; Ada", "1;2", "'=1", "a - b", "a=b", "Street 1\nTown"])
def test_what_is_no_formula_stays_as_it_is(text: str) -> None:
    assert escape_formulas(text) == text


def test_long_text_takes_no_longer_than_its_length() -> None:
    """Of these a pattern that goes back takes minutes."""
    for text in ("\n", " ", ";", "\n ", "; "):
        assert escape_formulas(text * 100_000 + "x").endswith("x")
