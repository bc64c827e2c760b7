"""Whether a text that a person typed can be read at all."""

from django.core.exceptions import ValidationError
from django.forms import Field

_INVISIBLE_LETTERS = frozenset("\u115f\u1160\u3164\uffa0")
"""Hangul fillers: Unicode counts them as letters, and they display nothing."""


def has_visible_text(text: str) -> bool:
    """Return whether the text has a letter or digit. Spaces, zero-width and control characters and
    marks are none.
    """
    return any(char.isalnum() and char not in _INVISIBLE_LETTERS for char in text)


def validate_visible_text(text: str) -> None:
    """Raises: ValidationError, as for an empty field."""
    if not has_visible_text(text):
        raise ValidationError(Field.default_error_messages["required"], code="required")
