"""The format of activation codes: Crockford's base32, in groups of four."""

import re

from ..._internal import randomness

CODE_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
CODE_LENGTH = 16
"""Symbols of five random bits each: 80 bits."""
_GROUP_LENGTH = 4
_AMBIGUOUS_SYMBOLS = str.maketrans("OIL", "011")
# Word processors and phones insert various hyphens and spaces.
_SEPARATORS = re.compile(r"[\s\u00ad\u2010-\u2015\u2212_.-]+")


def create_code() -> str:
    """Return a new random code without separators."""
    number = int.from_bytes(randomness.token_bytes(CODE_LENGTH * 5 // 8), "big")
    return "".join(
        CODE_ALPHABET[number >> 5 * place & 31] for place in reversed(range(CODE_LENGTH))
    )


def format_code(code: str) -> str:
    """Return the code with separators: `K7XM-4QHD-9VTZ-0B3E`."""
    return "-".join(
        code[start : start + _GROUP_LENGTH] for start in range(0, len(code), _GROUP_LENGTH)
    )


def parse_code(text: str) -> str:
    """Return the code of 16 symbols, or empty. Case, hyphens and spaces are ignored; O is read as
    0, I and L as 1.
    """
    code = _SEPARATORS.sub("", text).upper().translate(_AMBIGUOUS_SYMBOLS)
    if len(code) == CODE_LENGTH and set(code) <= set(CODE_ALPHABET):
        return code
    return ""
