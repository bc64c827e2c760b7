"""How soon a site needs an option: the grades in the tables of docs/reference/settings.md. No
Django.

Each field of a declaration has its grade as metadata: `field(default=…, metadata=LATER)`.
"""

from collections.abc import Mapping
from dataclasses import Field
from enum import StrEnum
from typing import Any, Final

_KEY = "grade"


class OptionGrade(StrEnum):
    """The grade of an option, in the order of the tables."""

    START_HERE = "start here"
    """A first portal sets the option, or decides to keep its default."""
    LATER = "later"
    """The option belongs to a feature that a portal adds when it needs it."""
    RARE = "rare"
    """Few sites need the option: for a special provider, an unusual network, or the law of one
    country.
    """


START_HERE: Final[Mapping[str, OptionGrade]] = {_KEY: OptionGrade.START_HERE}
LATER: Final[Mapping[str, OptionGrade]] = {_KEY: OptionGrade.LATER}
RARE: Final[Mapping[str, OptionGrade]] = {_KEY: OptionGrade.RARE}


def find_grade(option: Field[Any]) -> OptionGrade | None:
    """Return the grade of a field; None: it has none, as the name of a declaration."""
    grade = option.metadata.get(_KEY)
    return OptionGrade(grade) if grade else None
