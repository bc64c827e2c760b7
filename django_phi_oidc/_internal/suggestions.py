"""Suggestions for a mistyped name."""

from collections.abc import Collection
from difflib import get_close_matches

_MAX_NAMES = 5


def suggest(text: str, names: Collection[str]) -> str:
    """Return a question about the names that are nearest to text; about all if there are few; or an
    empty string.
    """
    near = get_close_matches(text, names) or (sorted(names) if len(names) <= _MAX_NAMES else [])
    if near:
        return f" Did you mean {' or '.join(near)}?"
    return ""
