"""Texts for claims, retention times and purposes."""

from datetime import timedelta
from typing import Any

import pytest
from portal import view_models


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1984-03-09", "1984-03-09"),
        ({"formatted": "A\nB", "locality": "B"}, "A\nB"),
        ({"locality": "B", "country": "C"}, "B\nC"),
        (["a", "b"], "a\nb"),
        (True, "yes"),
        (7, "7"),
    ],
)
def test_claim_values_as_text(value: Any, text: str) -> None:
    assert view_models.format_value(value) == text


@pytest.mark.parametrize(
    ("retention", "text"),
    [
        ("session", "until you sign out"),
        (None, "used when you sign in, not stored"),
        (timedelta(days=1), "for 1 day"),
        (timedelta(days=2), "for 2 days"),
        (timedelta(hours=36), "for 36 hours"),
        (timedelta(seconds=5), "for 5 seconds"),
    ],
)
def test_retention_as_text(retention: Any, text: str) -> None:
    assert view_models.format_retention(retention) == text


def test_purpose_without_own_text_has_the_name_of_hl7() -> None:
    assert view_models.get_purpose("HLEGAL").name == "Legal"
