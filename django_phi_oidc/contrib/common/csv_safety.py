"""Protection against formulas in CSV files that are opened in a spreadsheet."""

import re

# Spreadsheets may split columns at semicolons or tabs, regardless of the file's delimiter: a cell
# can begin in a value.
_FORMULA_START = re.compile(r"^(?=[\t\r\n])|(?:^|(?<=[;\t\r\n]))(?=[^\S\t\r\n]*[=+\-@＝＋－＠])")


def escape_formulas(text: str) -> str:
    """Return text with an apostrophe in front of each possible formula. Spec: OWASP, CSV
    Injection.
    """
    return _FORMULA_START.sub("'", text)
