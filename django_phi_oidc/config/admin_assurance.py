"""The setting `ADMIN_ASSURANCE`: the assurance of the sign-in that the admin requires. No
Django.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Annotated

from .assurance_levels import parse_acr_values, parse_vectors
from .option_grades import LATER, RARE
from .option_parsers import parse_duration

_parse_max_age = partial(parse_duration, minimum=timedelta(minutes=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminAssuranceDeclaration:
    """What a sign-in must meet for the pages of the admin. The empty one requires nothing."""

    acr: Annotated[tuple[str, ...], parse_acr_values] = field(default=(), metadata=LATER)
    """`acr` values, the weakest first: the sign-in must have one. Default: none is required."""
    vot: Annotated[tuple[str, ...], parse_vectors] = field(default=(), metadata=RARE)
    """[Vectors of trust](../how-to/require-assurance.md#vectors-of-trust), the weakest first: the
    sign-in must have all components of one. Default: none is required.
    """
    max_age: Annotated[timedelta, _parse_max_age] | None = field(default=None, metadata=LATER)
    """The longest time, at least a minute, since the user authenticated at the provider, for each
    page. Default: unlimited.
    """
    privilege_max_age: Annotated[timedelta, _parse_max_age] | None = field(
        default=None, metadata=LATER
    )
    """The same for pages that add, change or delete accounts, groups and permissions. Default:
    `max_age`.
    """
