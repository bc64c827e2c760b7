"""Texts in a CSV file that a spreadsheet shows, and does not run."""

import re

# Spreadsheets may part columns by semicolons or tabs, whatever the file does; then a cell begins within ours.
_FORMULA_START = re.compile(r"^(?=[\t\r\n])|(?:^|(?<=[;\t\r\n]))(?=[^\S\t\r\n]*[=+\-@＝＋－＠])")


def escape_formulas(text: str) -> str:
    """Return text with an apostrophe before all in it that would be a formula. Spec: OWASP, CSV Injection."""
    return _FORMULA_START.sub("'", text)
