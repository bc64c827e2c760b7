"""Formulas in CSV files, with the delimiters of spreadsheets in all locales."""

import pytest

from django_phi_oidc.contrib.common.csv_safety import escape_formulas


@pytest.mark.parametrize("sign", "=+-@＝＋－＠")
def test_start_of_a_formula_is_escaped(sign: str) -> None:
    for before in ("", " ", "\u00a0", "\u3000"):
        assert escape_formulas(f"{before}{sign}1") == f"'{before}{sign}1"
        for separator in ";\n":
            assert escape_formulas(f"Berg{separator}{before}{sign}1;2") == f"Berg{separator}'{before}{sign}1;2"
    for separator in "\t\r\n":
        assert escape_formulas(f"{separator}{sign}1") == f"'{separator}'{sign}1"
    assert escape_formulas(f"1{sign}1") == f"1{sign}1"


@pytest.mark.parametrize("text", ["", "Berg", "Berg; Ada", "1;2", "'=1", "a - b", "a=b", "Street 1\nTown"])
def test_other_text_is_unchanged(text: str) -> None:
    assert escape_formulas(text) == text


def test_long_text_takes_linear_time() -> None:
    """A pattern that backtracks takes minutes for these."""
    for text in ("\n", " ", ";", "\n ", "; "):
        assert escape_formulas(text * 100_000 + "x").endswith("x")
