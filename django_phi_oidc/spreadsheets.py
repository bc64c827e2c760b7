"""Texts in a CSV file that a spreadsheet shows, and does not run."""

_OBEYED = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def inert(text: str) -> str:
    """Return text with an apostrophe before it where it would be a formula. Spec: OWASP, CSV Injection."""
    return f"'{text}" if text.startswith(_OBEYED) else text
