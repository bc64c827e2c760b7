"""Activation codes as people read, say and type them: Crockford's base32, in groups of four. No Django."""

import re

from .. import entropy

SYMBOLS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH = 16
"""Symbols, of five random bits each: 80 bits."""
_GROUP = 4
_MEANT = str.maketrans("OIL", "011")
# Of hyphens and spaces, word processors and phones have many.
_BETWEEN = re.compile(r"[\s\u00ad\u2010-\u2015\u2212_.-]+")


def new_code() -> str:
    """Return a new code in its normal form: 80 unpredictable bits."""
    drawn = int.from_bytes(entropy.token_bytes(LENGTH * 5 // 8), "big")
    return "".join(SYMBOLS[drawn >> 5 * place & 31] for place in reversed(range(LENGTH)))


def spell(code: str) -> str:
    """Return the code as it is shown: `K7XM-4QHD-9VTZ-0B3E`."""
    return "-".join(code[start : start + _GROUP] for start in range(0, len(code), _GROUP))


def read_code(text: str) -> str:
    """Return the code that was typed, in its normal form; empty where it is none.

    Case, hyphens and spaces do not count, and what looks like a digit is that digit: O is 0, I and L are 1.
    """
    code = _BETWEEN.sub("", text).upper().translate(_MEANT)
    return code if len(code) == LENGTH and set(code) <= set(SYMBOLS) else ""
