"""Activation codes as people read, say and type them: Crockford's base32, in groups of four. No Django."""

import re

from .._internal import randomness

CODE_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
CODE_LENGTH = 16
"""Symbols, of five random bits each: 80 bits."""
_GROUP_LENGTH = 4
_AMBIGUOUS_SYMBOLS = str.maketrans("OIL", "011")
# Of hyphens and spaces, word processors and phones have many.
_SEPARATORS = re.compile(r"[\s\u00ad\u2010-\u2015\u2212_.-]+")


def create_code() -> str:
    """Return a new code in its normal form: 80 unpredictable bits."""
    drawn = int.from_bytes(randomness.token_bytes(CODE_LENGTH * 5 // 8), "big")
    return "".join(CODE_ALPHABET[drawn >> 5 * place & 31] for place in reversed(range(CODE_LENGTH)))


def format_code(code: str) -> str:
    """Return the code as it is shown: `K7XM-4QHD-9VTZ-0B3E`."""
    return "-".join(code[start : start + _GROUP_LENGTH] for start in range(0, len(code), _GROUP_LENGTH))


def parse_code(text: str) -> str:
    """Return the code that was typed, in its normal form; empty where it is none.

    Case, hyphens and spaces do not count, and what looks like a digit is that digit: O is 0, I and L are 1.
    """
    code = _SEPARATORS.sub("", text).upper().translate(_AMBIGUOUS_SYMBOLS)
    return code if len(code) == CODE_LENGTH and set(code) <= set(CODE_ALPHABET) else ""
