"""Words for people."""

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
def test_text_of_a_claim(value: Any, text: str) -> None:
    assert view_models.text(value) == text


@pytest.mark.parametrize(
    ("retention", "text"),
    [
        ("session", "until you sign out"),
        (None, "used when you sign in, not kept"),
        (timedelta(days=1), "for 1 day"),
        (timedelta(days=2), "for 2 days"),
        (timedelta(hours=36), "for 36 hours"),
        (timedelta(seconds=5), "for 5 seconds"),
    ],
)
def test_retention_in_words(retention: Any, text: str) -> None:
    assert view_models.retention(retention) == text


def test_purpose_without_words_of_ours_has_hl7s() -> None:
    assert view_models.purpose("HLEGAL").name == "Legal"
